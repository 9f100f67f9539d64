// The strings of a vocabulary; src/octavo/text/string_table.py wraps them as a sequence.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <string_view>

#include "text/string_table.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using octavo::StringTable;
using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::string_view utf8(const nb::str& text) {
  Py_ssize_t length = 0;
  const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &length);
  if (!bytes) throw nb::python_error();
  return {bytes, std::size_t(length)};
}

nb::bytes bytes_of(std::string_view text) { return nb::bytes(text.data(), text.size()); }

}  // namespace

void bind_text(nb::module_& module) {
  nb::class_<StringTable>(module, "StringTable")
      .def(nb::init<>())
      .def("add", [](StringTable& self, const nb::str& text) { self.add(utf8(text)); }, "text"_a)
      .def("read", [](StringTable& self, const Bytes& bytes, std::size_t count) {
        return self.read(bytes.data(), bytes.size(), count);
      }, "bytes"_a, "count"_a)
      .def("__len__", &StringTable::size)
      .def("spelling", [](const StringTable& self, std::size_t index) {
        if (index >= self.size()) throw nb::index_error();
        return bytes_of(self[index]);
      }, "index"_a)
      .def("find", [](StringTable& self, const nb::str& text) { return self.find(utf8(text)); }, "text"_a)
      .def("replaced", [](const StringTable& self, const nb::str& part, const nb::str& other) {
        if (utf8(part).empty()) throw nb::value_error("there is no empty part to replace");
        return self.replaced(utf8(part), utf8(other));
      }, "part"_a, "other"_a)
      .def("holding", [](const StringTable& self, const nb::str& part) { return self.holding(utf8(part)); }, "part"_a)
      .def("characters_before", [](const StringTable& self, const nb::str& mark) {
        const auto found = self.characters_before(utf8(mark));
        return bytes_of({found.data(), found.size()});
      }, "mark"_a)
      .def("first_invalid", &StringTable::first_invalid);
}
