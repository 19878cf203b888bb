// The choice between the implementations of an operator: an ordered list, each with the reason why it is not eligible
// for a problem. An operator asks once, by select(); describe() shows the list to users.
#pragma once

#include <cstdint>
#include <string>

namespace sa_layers::cpu {

// What a choice may depend on besides the problem.
struct VectorType {
  bool is_float64;
  int64_t lanes;  // of a vector of the chosen instruction set
};

template <typename Problem>
struct Implementation {
  const char* name;
  std::string (*why_not)(const Problem& problem, const VectorType& vector);  // empty if it is eligible
};

// The first eligible implementation of a list, or null.
template <typename Problem, size_t kCount>
const Implementation<Problem>* select(const Implementation<Problem>* const (&implementations)[kCount],
                                      const Problem& problem, const VectorType& vector) {
  for (const Implementation<Problem>* implementation : implementations) {
    if (implementation->why_not(problem, vector).empty()) return implementation;
  }
  return nullptr;
}

// A line for each implementation of a list, in the order in which they are tried: '<name>' if it is eligible, otherwise
// '<name>: <reason>'.
template <typename Problem, size_t kCount>
std::string describe(const Implementation<Problem>* const (&implementations)[kCount], const Problem& problem,
                     const VectorType& vector) {
  std::string text;
  for (const Implementation<Problem>* implementation : implementations) {
    const std::string reason = implementation->why_not(problem, vector);
    text += (text.empty() ? "" : "\n") + std::string(implementation->name) + (reason.empty() ? "" : ": ") + reason;
  }
  return text;
}

}  // namespace sa_layers::cpu
