// The weights of one or more linear layers as panels of output channels.
#pragma once

#include <algorithm>
#include <deque>
#include <vector>

#include "cpu/linear/problem.h"
#include "cpu/runtime/tensors.h"

namespace sa_layers::cpu {

// The weights of each panel, kPanelColumns rows that follow each other in memory. Rows of several layers that share a
// panel, and of one that is padded, are copied.
class PanelWeights {
 public:
  PanelWeights(const std::vector<Tensor>& weights, int64_t channels) {
    std::vector<const float*> rows;
    for (const Tensor& weight : weights) {
      for (int64_t row = 0; row < weight.size(0); ++row) rows.push_back(data<float>(weight) + row * channels);
    }
    rows.resize(pad_columns(static_cast<int64_t>(rows.size())), nullptr);
    for (size_t first = 0; first < rows.size(); first += kPanelColumns) {
      bool follow = rows[first] != nullptr;
      for (int64_t i = 1; i < kPanelColumns; ++i) follow = follow && rows[first + i] == rows[first] + i * channels;
      panels_.push_back(follow ? rows[first] : copy(&rows[first], channels));
    }
  }

  const float* const* data_of_panels() const { return panels_.data(); }
  int64_t panels() const { return static_cast<int64_t>(panels_.size()); }

 private:
  const float* copy(const float* const* rows, int64_t channels) {
    std::vector<float>& panel = copies_.emplace_back(kPanelColumns * channels, 0.0f);
    for (int64_t i = 0; i < kPanelColumns; ++i) {
      if (rows[i] != nullptr) std::copy_n(rows[i], channels, panel.data() + i * channels);
    }
    return panel.data();
  }

  std::vector<const float*> panels_;
  std::deque<std::vector<float>> copies_;
};

}  // namespace sa_layers::cpu
