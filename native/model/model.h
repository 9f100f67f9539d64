// A model: packed weights, a plan, a paged cache, and the step that runs the plan for a batch of sequences.
//
// The plan is made in Python (decoding/plan.py): a list of stages.  A stage is a program of operations on single
// tokens' rows (norms, rope, activations), then one sweep in which all threads share the work (a group of matmuls with
// one input, or attention).  An architecture is a plan; nothing here knows its name.
// Shapes: T tokens of a step, S sequences, R rows whose logits are wanted.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/block_formats.h"
#include "model/low_rank.h"
#include "ops/kernels.h"
#include "support/aligned.h"
#include "support/thread_pool.h"

namespace octavo {

struct Cancelled : std::runtime_error {
  Cancelled() : std::runtime_error("the step was cancelled") {}
};

// A part of a buffer's rows: columns from `offset` on.
struct View {
  int buffer = -1;
  int offset = 0;
};

enum class Operation : std::uint8_t { Row, Rope, Embed, AddVector, StoreCache, State };

struct RowOperation {
  Operation operation;
  RowKind kind{};
  View out, in, in2;
  int weight = -1, bias = -1;  // vectors
  int count = 0, width = 0, stride = 0;
  float number = 0;
  int table = -1;  // of an embedding or a rope; the layer of a StoreCache
};

struct MatmulPart {
  int matrix;
  int bias;  // a vector, or -1
  View out;  // buffer -1: the logits
};

struct AttentionPart {
  int layer;
  View query, out;
  int window;
  bool causal;
  float scale, softcap;
};

struct Stage {
  std::vector<RowOperation> rows;
  std::vector<MatmulPart> matmuls;
  View matmul_input;
  int matmul_columns = 0;
  std::optional<AttentionPart> attention;
  bool merges = false;       // the attention of the stage before may have left partial sums
  bool on_outputs = false;   // runs for the R rows whose results are wanted, not for all T
  bool is_logits = false;
};

// Coarse: as Q4_0 whatever the bytes are, for a model that only drafts: the kernels read that format fastest, and its
// mistakes cost no more than a guess.  Pairs: rounded to bfloat16, and what they are multiplied with too.
enum class Packing : std::uint8_t { Exact, Coarse, Pairs };

struct StepInput {
  const std::int32_t* tokens;        // [T]
  const std::int32_t* positions;     // [T]
  const std::int32_t* rows;          // [T] which row of block_tables
  const std::int32_t* block_tables;  // [S, table_width]
  const std::int32_t* outputs;       // [R] indices into 0..T-1
  int token_count, sequence_count, table_width, output_count;
  float* logits;  // [R, V] or null
  float* hidden;  // [R, H] or null
  // A tree of drafts: its branches have rows of the block tables of their own, and a token whose row is the trunk's is
  // stored in a branch's blocks too where the branch begins behind it.  So a branch sees its ancestors and nothing
  // else, each at its position: no mask, and the bits are those of the branch alone.
  const std::int32_t* shares = nullptr;  // [share_count][2]: a token of the step, one more row that stores it
  int share_count = 0;
  const std::int32_t* adapters = nullptr;  // [S]: each row's adapter, -1 for none; null: none at all
  const float* states = nullptr;           // [T, state width]: rows that come from outside, of a plan that takes them
};

class Model {
 public:
  Model(const Kernels* kernels, int threads, int max_tokens);

  // --- building; ids are indices in the order of the calls ---
  int buffer(int width);
  int vector(const float* values, int count);
  // The bytes are read by finish(), not before.
  int matrix(int type, int rows, int columns, const std::uint8_t* bytes, Packing packing = Packing::Exact);
  bool bfloat_products() const { return kernels_->bfloat_products; }
  // The bytes are read at every step: they must live as long as the model.
  int table(int type, int rows, int columns, const std::uint8_t* bytes);
  int rope(const std::vector<float>& frequencies, float attention_factor);
  void cache(int layers, int heads, int key_value_heads, int head_width, int blocks, CacheType type);
  void add_row(const RowOperation& operation);
  void add_state(View out, int width);  // a token's row of the step's states
  void add_matmul(View input, int columns, std::vector<MatmulPart> parts);
  void add_attention(const AttentionPart& part);
  void select_outputs(View hidden, int hidden_size);  // later stages run for the wanted rows only
  // margin: logits further below the largest are computed with fewer bits (see Refinement); infinity for none.
  void add_logits(View input, int columns, int matrix, float softcap, float margin);
  // part_done: called after each part that is packed, for one who wants the memory of the source back.
  void finish(const std::function<void()>& part_done);

  // --- running ---
  void step(const StepInput& input);
  void cancel() { cancelled_.store(true); }
  // Adapters (Hu et al. 2021): sequences that name one get its pairs' products added.  Between steps.
  void set_adapter(int adapter, const std::vector<LowRankPair>& pairs);
  void clear_adapter(int adapter);
  void copy_block(int from, int to);  // all layers' keys and values

  std::size_t weight_bytes() const { return weights_.size() + lower_plane_.size(); }  // packed
  std::size_t cache_bytes() const { return cache_.size(); }
  std::size_t deferred_bytes() const { return lower_plane_.size(); }  // of the weights, read only where it matters
  int max_tokens() const { return max_tokens_; }
  int threads() const { return pool_.threads(); }
  int vocabulary_size() const { return vocabulary_size_; }
  int hidden_size() const { return hidden_size_; }
  int state_width() const { return state_width_; }

 private:
  struct Buffer { int width; AlignedBuffer<float> data; };
  struct Table { BlockType type; int rows, columns; const std::uint8_t* bytes; };
  struct Source { BlockType type; int rows, columns; const std::uint8_t* bytes; BlockType packed; bool in_planes = false; };
  struct Rope { std::vector<float> frequencies; float factor; AlignedBuffer<float> cosines, sines; };
  struct Sequence { int first, count, keys, adapter; const std::int32_t* blocks; };
  struct AttentionPiece { int sequence, head, first_row, rows, split_begin, split_end; };

  Stage& open_stage();
  void check(const StepInput& input) const;
  void prepare(const StepInput& input);
  void plan_attention();
  void run(int thread);
  void prefetch_sweep(const Stage& stage, int thread) const;
  void run_rows(const Stage& stage, int row);
  void run_row(const RowOperation& operation, int token);
  void merge_partials(const Stage& stage, int token);
  void run_matmul_piece(const Stage& stage, int piece);
  void prepare_low_rank();
  const LowRankStage* low_rank_of(const Stage& stage, int token) const;  // null: nothing is added
  QuantizedGroup* inner_of(const LowRankUp& up, int token);
  void multiply_downs(const LowRankStage& low_rank, int token, const QuantizedGroup* values, int width);
  void ask_for_ups(const Stage& stage, int matrix, int panel) const;
  void add_ups(const Stage& stage, int matrix, int begin, int end, const MatmulTask& task);
  void run_attention_piece(const AttentionPart& part, const AttentionPiece& piece, int thread);
  void set_floors(const Stage& stage);
  MatmulTask matmul_task(const Stage& stage, const MatmulPart& part);
  template <class Visit> void visit_piece(const Stage& stage, int piece, Visit visit);
  void refine_piece(const Stage& stage, int piece);
  int matmul_pieces(const Stage& stage) const;
  int rows_of(const Stage& stage) const { return stage.on_outputs ? input_.output_count : input_.token_count; }
  float* at(View view, int row);

  const Kernels* kernels_;
  ThreadPool pool_;
  int max_tokens_;
  std::vector<Buffer> buffers_;
  std::vector<AlignedBuffer<float>> vectors_;
  std::vector<Source> sources_;
  std::vector<PanelMatrix> matrices_;
  AlignedBuffer<std::uint8_t> weights_;  // of all matrices
  std::vector<Table> tables_;
  std::vector<Rope> ropes_;
  std::vector<Stage> stages_;
  AlignedBuffer<std::uint8_t> lower_plane_;  // of the logits' matrix, if it is in two planes
  float logit_softcap_ = 0, logit_margin_ = 0;
  View hidden_;
  int hidden_size_ = 0, vocabulary_size_ = 0, state_width_ = 0;

  AlignedBuffer<std::uint8_t> cache_;
  int cache_layers_ = 0, cache_heads_ = 0, cache_blocks_ = 0, heads_ = 0;
  CacheLayer cache_shape_{};

  std::vector<Adapter> adapters_;
  int most_inner_ = 0, most_inner_groups_ = 0;  // of a token's products with the downs of a stage: floats, quantized groups

  // Of the step that runs; the mutex lets one in at a time.
  std::mutex mutex_;
  StepInput input_{};
  std::vector<Sequence> sequences_;
  std::vector<int> token_sequence_;
  std::vector<AttentionPiece> attention_pieces_;
  bool partial_ = false;
  int splits_ = 0;
  AlignedBuffer<float> partials_;
  AlignedBuffer<float> attention_scratch_;
  AlignedBuffer<std::uint8_t> quantized_;
  AlignedBuffer<float> packed_;  // float activations
  std::vector<float> piece_largest_;  // [pieces of the logits' sweep][outputs]
  std::vector<float> floors_;         // [outputs]
  std::vector<int> step_adapters_;    // each once
  std::vector<float> inner_;          // [tokens][most_inner_], where any sequence has an adapter
  std::vector<QuantizedGroup> inner_groups_;  // [tokens][most_inner_groups_][2], the same quantized
  std::atomic<bool> cancelled_{false};
  bool stopped_ = false;
  WorkShare row_share_, sweep_share_;
};

// GB/s (10^9 bytes) that `threads` threads read from a buffer larger than the caches.
double measure_bandwidth(int threads, int megabytes, double seconds);

}  // namespace octavo
