// Model and what belongs to it: shapes and types are checked here, the interpreter's lock is released, and the call is
// passed on.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "isa/dispatch.h"
#include "model/model.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using octavo::Model;
using octavo::View;
using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Integers = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const std::int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Place = std::pair<int, int>;  // buffer, offset

View view(const Place& place) { return {place.first, place.second}; }

void require(bool condition, const char* what) {
  if (!condition) throw nb::value_error(what);
}

octavo::RowKind row_kind(const std::string& name) {
  using octavo::RowKind;
  static const std::pair<const char*, RowKind> names[] = {
      {"add", RowKind::Add}, {"scale", RowKind::Scale}, {"rms_norm", RowKind::RmsNorm},
      {"layer_norm", RowKind::LayerNorm}, {"head_norm", RowKind::HeadNorm}, {"silu", RowKind::Silu},
      {"gelu", RowKind::Gelu}, {"gelu_tanh", RowKind::GeluTanh}, {"gated_silu", RowKind::GatedSilu},
      {"gated_gelu", RowKind::GatedGelu}, {"gated_gelu_tanh", RowKind::GatedGeluTanh}};
  for (const auto& [known, kind] : names)
    if (name == known) return kind;
  throw nb::value_error(("there is no row operation '" + name + "'").c_str());
}

void check_bytes(int type, int rows, int columns, const Bytes& bytes) {
  const octavo::BlockType block = octavo::block_type(type);
  require(rows > 0 && columns > 0 && columns % octavo::block_elements(block) == 0,
          "a matrix's columns must be whole blocks of its type");
  require(bytes.size() == octavo::row_bytes(block, columns) * std::size_t(rows),
          "a matrix's bytes must be exactly its rows");
}

void step(Model& model, const Integers& tokens, const Integers& positions, const Integers& rows, const Table& block_tables,
          const Integers& outputs, std::optional<Matrix> logits, std::optional<Matrix> hidden,
          std::optional<Table> shares, std::optional<Integers> adapters, std::optional<Matrix> states) {
  require(positions.size() == tokens.size() && rows.size() == tokens.size(),
          "tokens, positions and rows must have one length");
  require(!logits || (logits->shape(0) == outputs.size() && int(logits->shape(1)) == model.vocabulary_size()),
          "logits must have the shape [outputs, vocabulary]");
  require(!hidden || (hidden->shape(0) == outputs.size() && int(hidden->shape(1)) == model.hidden_size()),
          "hidden must have the shape [outputs, hidden size]");
  require(!shares || shares->shape(1) == 2, "shares must have the shape [n, 2]");
  octavo::StepInput input{tokens.data(), positions.data(), rows.data(), block_tables.data(), outputs.data(),
                                int(tokens.size()), int(block_tables.shape(0)), int(block_tables.shape(1)),
                                int(outputs.size()), logits ? logits->data() : nullptr,
                                hidden ? hidden->data() : nullptr};
  if (shares) input.shares = shares->data(), input.share_count = int(shares->shape(0));
  require(!adapters || adapters->size() == block_tables.shape(0), "adapters must have one number for each row of the block tables");
  if (adapters) input.adapters = adapters->data();
  require(!states || (states->shape(0) == tokens.size() && int(states->shape(1)) == model.state_width()),
          "states must have the shape [tokens, state width]");
  if (states) input.states = states->data();
  nb::gil_scoped_release unlocked;
  model.step(input);
}

octavo::RowOperation embed(int table, const Place& out, bool by_position, int offset) {
  octavo::RowOperation operation{octavo::Operation::Embed, {}, view(out), {}, {}};
  operation.table = table;
  operation.width = by_position;
  operation.stride = offset;
  return operation;
}

void bind_machine(nb::module_& module) {
  module.def("isa", [] { return std::string(octavo::choose_kernels("")->name); },
             "The instruction set in use: OCTAVO_ISA, or the best that the machine has.");
  module.def("available_isas", [] {
    std::vector<std::string> names;
    for (const octavo::Kernels* kernels : octavo::available_kernels()) names.emplace_back(kernels->name);
    return names;
  }, "The instruction sets that this machine and this build have, the best first.");
  module.def("measure_bandwidth", &octavo::measure_bandwidth, "threads"_a, "megabytes"_a = 256, "seconds"_a = 0.3,
             nb::call_guard<nb::gil_scoped_release>(), "GB/s (10^9 bytes) read by that many threads.");
  module.def("dequantize", [](int type, int columns, const Bytes& bytes, Matrix out) {
    check_bytes(type, int(out.shape(0)), columns, bytes);
    require(int(out.shape(1)) == columns, "out must have the shape [rows, columns]");
    const octavo::BlockType block = octavo::block_type(type);
    for (std::size_t row = 0; row < out.shape(0); ++row)
      octavo::dequantize_row(block, bytes.data() + octavo::row_bytes(block, columns) * row, columns,
                             out.data() + row * columns);
  }, "type"_a, "columns"_a, "bytes"_a, "out"_a, "Writes the float32 values of a GGUF tensor's rows to out.");
}

void bind_weights(nb::class_<Model>& model) {
  model
      .def("__init__", [](Model* self, int threads, int max_tokens, const std::string& isa) {
        new (self) Model(octavo::choose_kernels(isa), threads, max_tokens);
      }, "threads"_a, "max_tokens"_a, "isa"_a = "")
      .def("buffer", &Model::buffer, "width"_a)
      .def("vector", [](Model& self, const Floats& values) { return self.vector(values.data(), int(values.size())); })
      .def("matrix", [](Model& self, int type, int rows, int columns, const Bytes& bytes, const std::string& packing) {
        check_bytes(type, rows, columns, bytes);
        using octavo::Packing;
        require(packing == "exact" || packing == "coarse" || packing == "pairs", "packing must be exact, coarse or pairs");
        return self.matrix(type, rows, columns, bytes.data(),
                           packing == "exact" ? Packing::Exact : packing == "coarse" ? Packing::Coarse : Packing::Pairs);
      }, "type"_a, "rows"_a, "columns"_a, "bytes"_a, "packing"_a = "exact", nb::keep_alive<1, 5>())
      .def_prop_ro("bfloat_products", &Model::bfloat_products)
      .def("table", [](Model& self, int type, int rows, int columns, const Bytes& bytes) {
        check_bytes(type, rows, columns, bytes);
        return self.table(type, rows, columns, bytes.data());
      }, "type"_a, "rows"_a, "columns"_a, "bytes"_a, nb::keep_alive<1, 5>())
      .def("rope", &Model::rope, "frequencies"_a, "attention_factor"_a = 1.0f)
      .def("cache", [](Model& self, int layers, int heads, int key_value_heads, int head_width, int blocks,
                       const std::string& type) {
        require(type == "f16" || type == "int8", "the cache's type must be 'f16' or 'int8'");
        self.cache(layers, heads, key_value_heads, head_width, blocks,
                   type == "f16" ? octavo::CacheType::F16 : octavo::CacheType::I8);
      }, "layers"_a, "heads"_a, "key_value_heads"_a, "head_width"_a, "blocks"_a, "type"_a);
}

void bind_plan(nb::class_<Model>& model) {
  model
      .def("row", [](Model& self, const std::string& kind, const Place& out, const Place& in, const Place& in2, int weight,
                     int bias, int count, int width, float number) {
        octavo::RowOperation operation{octavo::Operation::Row, row_kind(kind), view(out), view(in), view(in2)};
        operation.weight = weight, operation.bias = bias;
        operation.count = count, operation.width = width, operation.number = number;
        require(count > 0 && count % 16 == 0, "a row operation's count must be a multiple of 16");
        self.add_row(operation);
      }, "kind"_a, "out"_a, "input"_a = Place{-1, 0}, "second"_a = Place{-1, 0}, "weight"_a = -1, "bias"_a = -1,
         nb::kw_only(), "count"_a, "width"_a = 0, "number"_a = 0.0f)
      .def("rotate", [](Model& self, const Place& out, int rope, int heads, int head_width, int width, bool interleaved) {
        octavo::RowOperation operation{octavo::Operation::Rope,
                                       interleaved ? octavo::RowKind::RopeInterleaved : octavo::RowKind::RopeHalf,
                                       view(out), {}, {}};
        operation.count = heads * head_width, operation.stride = head_width, operation.width = width;
        operation.table = rope;
        self.add_row(operation);
      }, "out"_a, "rope"_a, "heads"_a, "head_width"_a, "width"_a, "interleaved"_a)
      .def("embed", [](Model& self, int table, const Place& out) { self.add_row(embed(table, out, false, 0)); })
      .def("state", [](Model& self, const Place& out, int width) { self.add_state(view(out), width); }, "out"_a, "width"_a)
      .def("embed_positions", [](Model& self, int table, const Place& out) { self.add_row(embed(table, out, true, 0)); })
      .def("add_vector", [](Model& self, const Place& out, int vector, int count) {
        octavo::RowOperation operation{octavo::Operation::AddVector, {}, view(out), {}, {}};
        operation.weight = vector, operation.count = count;
        self.add_row(operation);
      })
      .def("store_cache", [](Model& self, int layer, const Place& key, const Place& value) {
        octavo::RowOperation operation{octavo::Operation::StoreCache, {}, {}, view(key), view(value)};
        operation.table = layer;
        self.add_row(operation);
      })
      .def("matmul", [](Model& self, const Place& input, int columns, const std::vector<std::tuple<int, int, Place>>& parts) {
        std::vector<octavo::MatmulPart> converted;
        for (const auto& [matrix, bias, out] : parts) converted.push_back({matrix, bias, view(out)});
        self.add_matmul(view(input), columns, std::move(converted));
      }, "input"_a, "columns"_a, "parts"_a)
      .def("attention", [](Model& self, int layer, const Place& query, const Place& out, int window, bool causal,
                           float scale, float softcap) {
        self.add_attention({layer, view(query), view(out), window, causal, scale, softcap});
      }, "layer"_a, "query"_a, "out"_a, nb::kw_only(), "window"_a, "causal"_a, "scale"_a, "softcap"_a)
      .def("select_outputs", [](Model& self, const Place& hidden, int size) { self.select_outputs(view(hidden), size); })
      .def("logits", [](Model& self, const Place& input, int columns, int matrix, float softcap,
                        float margin) { self.add_logits(view(input), columns, matrix, softcap, margin); },
           "input"_a, "columns"_a, "matrix"_a, "softcap"_a, "margin"_a);
}

void bind_running(nb::class_<Model>& model) {
  model
      .def("finish",
           [](Model& model, const nb::callable& part_done) {
             nb::gil_scoped_release release;
             model.finish([&] {
               nb::gil_scoped_acquire acquire;
               part_done();
             });
           })
      .def("step", &step, "tokens"_a, "positions"_a, "rows"_a, "block_tables"_a, "outputs"_a, "logits"_a.none(),
           "hidden"_a.none() = nb::none(), "shares"_a.none() = nb::none(), "adapters"_a.none() = nb::none(),
           "states"_a.none() = nb::none())
      .def("set_adapter", [](Model& self, int adapter, const std::vector<std::tuple<int, int, Matrix, Matrix>>& given) {
        std::vector<octavo::LowRankPair> pairs;
        for (const auto& [matrix, first_row, down, up] : given) {
          require(down.shape(0) == up.shape(1), "down [rank, columns] and up [rows, rank] must have one rank");
          pairs.push_back({matrix, first_row, int(down.shape(0)), int(down.shape(1)), int(up.shape(0)), down.data(), up.data()});
        }
        nb::gil_scoped_release unlocked;
        self.set_adapter(adapter, pairs);
      }, "adapter"_a, "pairs"_a)
      .def("clear_adapter", &Model::clear_adapter, "adapter"_a)
      .def("copy_block", &Model::copy_block, "source"_a, "target"_a)
      .def("cancel", &Model::cancel)
      .def_prop_ro("weight_bytes", &Model::weight_bytes)
      .def_prop_ro("cache_bytes", &Model::cache_bytes)
      .def_prop_ro("deferred_bytes", &Model::deferred_bytes)
      .def_prop_ro("vocabulary_size", &Model::vocabulary_size)
      .def_prop_ro("hidden_size", &Model::hidden_size)
      .def_prop_ro("threads", &Model::threads);
}

}  // namespace

void bind_model(nb::module_& module) {
  nb::exception<octavo::Cancelled>(module, "Cancelled");
  bind_machine(module);
  nb::class_<Model> model(module, "Model");
  bind_weights(model);
  bind_plan(model);
  bind_running(model);
}
