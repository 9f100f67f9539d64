// The matmuls of a step: how a sweep over a stage's panels is cut into pieces, and what a piece does.
#include <algorithm>
#include <cmath>

#include "model/model.h"

namespace octavo {
namespace {

constexpr int kLeadLines = 64;      // of 64 bytes, prefetched before a sweep
constexpr int kPanelsTogether = 2;  // multiplied side by side: kCodePanels of the instruction set that has most

}  // namespace

// While a thread waits for the others, memory may already bring what it reads first in the next sweep.
void Model::prefetch_sweep(const Stage& stage, int thread) const {
  if (stage.matmuls.empty()) return;
  int panels = 0;
  for (const MatmulPart& part : stage.matmuls) panels += matrices_[part.matrix].panels();
  int first = sweep_share_.first(thread, matmul_pieces(stage)) * panels / matmul_pieces(stage);
  for (const MatmulPart& part : stage.matmuls) {
    const PanelMatrix& matrix = matrices_[part.matrix];
    if (first < matrix.panels()) {
      const std::uint8_t* at = matrix.data + matrix.panel_bytes() * first;
      for (int line = 0; line < kLeadLines; ++line) __builtin_prefetch(at + kLine * line);
      return;
    }
    first -= matrix.panels();
  }
}

// A sweep is cut into pieces small enough that a late thread holds nobody up for long, and large enough to stream.
int Model::matmul_pieces(const Stage& stage) const {
  int panels = 0;
  for (const MatmulPart& part : stage.matmuls) panels += matrices_[part.matrix].panels();
  return std::min(panels, pool_.threads() == 1 ? 1 : std::max(pool_.threads() * 8, panels / 64));
}

MatmulTask Model::matmul_task(const Stage& stage, const MatmulPart& part) {
  const PanelMatrix& matrix = matrices_[part.matrix];
  const bool is_float = matrix.format.is_float();
  const int tokens = rows_of(stage), width = kernels_->width(matrix.format, tokens);
  const std::size_t columns = stage.matmul_columns, lanes = matrix.format.codes == Codes::Pairs ? columns / 2 : columns;
  MatmulTask task{matrix, part.bias < 0 ? nullptr : vectors_[part.bias].data(),
                  is_float ? (const std::uint8_t*)packed_.data() : quantized_.data(),
                  is_float ? lanes * width * sizeof(float) : quantized_tile_bytes(columns, width),
                  width, tokens, nullptr, 0};
  if (part.out.buffer < 0) {
    task.out = input_.logits;
    task.out_stride = matrix.rows;
  } else {
    task.out = at(part.out, 0);
    task.out_stride = buffers_[part.out.buffer].width;
  }
  return task;
}

// Calls visit(part, first panel, last panel) for the panels of each matrix that a piece of a sweep covers.
template <class Visit>
void Model::visit_piece(const Stage& stage, int piece, Visit visit) {
  int panels = 0;
  for (const MatmulPart& part : stage.matmuls) panels += matrices_[part.matrix].panels();
  const int pieces = matmul_pieces(stage);
  int begin = int(std::int64_t(panels) * piece / pieces), end = int(std::int64_t(panels) * (piece + 1) / pieces);
  for (const MatmulPart& part : stage.matmuls) {
    const int count = matrices_[part.matrix].panels();
    const int first = std::max(begin, 0), last = std::min(end, count);
    begin -= count;
    end -= count;
    if (first < last) visit(part, first, last);
  }
}

void Model::run_matmul_piece(const Stage& stage, int piece) {
  visit_piece(stage, piece, [&](const MatmulPart& part, int first, int last) {
    const MatmulTask task = matmul_task(stage, part);
    if (step_adapters_.empty()) {
      kernels_->matmul(task, first, last);
    } else {
      for (int panel = first; panel < last; panel += kPanelsTogether) {
        const int next = std::min(panel + kPanelsTogether, last);
        for (int asked = panel; asked < next; ++asked) ask_for_ups(stage, part.matrix, asked);
        kernels_->matmul(task, panel, next);
      }
      add_ups(stage, part.matrix, first, last, task);
    }
    if (!stage.is_logits) return;
    for (int row = 0; row < task.tokens; ++row) {
      float* out = task.out + task.out_stride * row + first * kPanelRows;
      const int count = (last - first) * kPanelRows;
      if (lower_plane_.size()) piece_largest_[std::size_t(piece) * task.tokens + row] = kernels_->largest(out, count);
      if (logit_softcap_ == 0.0f) continue;
      RowTask cap{RowKind::SoftCap, out, nullptr, nullptr, nullptr, nullptr, count, 0, 0, logit_softcap_};
      kernels_->row(cap);
    }
  });
}

void Model::set_floors(const Stage& stage) {
  const int pieces = matmul_pieces(stage), tokens = rows_of(stage);
  for (int row = 0; row < tokens; ++row) {
    float largest = piece_largest_[row];
    for (int piece = 1; piece < pieces; ++piece)
      largest = std::max(largest, piece_largest_[std::size_t(piece) * tokens + row]);
    floors_[row] = largest - logit_margin_;
  }
}

void Model::refine_piece(const Stage& stage, int piece) {
  visit_piece(stage, piece, [&](const MatmulPart& part, int first, int last) {
    kernels_->refine({matmul_task(stage, part), lower_plane_.data(), floors_.data()}, first, last);
  });
}

}  // namespace octavo
