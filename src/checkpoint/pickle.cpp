// A pickle machine of 31 opcodes that knows dicts, tuples, numbers, text and tensors.
#include "checkpoint/pickle.h"

#include "checkpoint/pickle_names.h"
#include "checkpoint/pickle_values.h"
#include "core/text.h"
#include "moue/error.h"

#include <cstring>
#include <optional>
#include <span>

namespace moue {
namespace {

using namespace pickle;

class Unpickler {
 public:
  Unpickler(std::string_view bytes, const std::string& file) : bytes_(bytes), file_(file) {
    heap_.bytes = bytes;
  }

  std::vector<PickledTensor> read() {
    if (bytes_.size() > kMostPickleBytes) {
      refuse("the pickle has {} bytes, wanted at most {}", bytes_.size(), kMostPickleBytes);
    }
    if (!bytes_.starts_with("\x80\x02")) {
      refuse("the pickle does not start with protocol 2, torch.save's own");
    }
    at_ = 2;
    while (step()) {
    }
    if (at_ != bytes_.size()) refuse("{} follow the pickle", counted(bytes_.size() - at_, "byte"));
    if (stack_.size() != 1 || !marks_.empty()) refuse("the pickle ends with more than one value");
    return tensors_of(heap_, stack_[0], file_);
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) const {
    fail("pytorch", "{}: {}", file_, fmt::format(text, std::forward<Args>(args)...));
  }

  // ---- bytes of the pickle

  std::string_view take(uint64_t size) {
    if (size > bytes_.size() - at_) refuse("the pickle ends inside {}", opcode_text(opcode_));
    const std::string_view taken = bytes_.substr(at_, size);
    at_ += size;
    return taken;
  }

  template <class T>
  T take_number() {
    T value{};
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string_view take_line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == bytes_.npos) refuse("the pickle ends inside {}", opcode_text(opcode_));
    const std::string_view line = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return line;
  }

  // ---- the stack

  void push(Kind kind, int64_t data = 0, uint32_t count = 0) {
    stack_.push_back({kind, count, data});
  }

  // Values under the last mark belong to whoever set it.
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  Value pop() {
    if (stack_.size() <= floor()) refuse("{} finds no value", opcode_text(opcode_));
    const Value value = stack_.back();
    stack_.pop_back();
    return value;
  }

  const Value& top() const {
    if (stack_.size() <= floor()) refuse("{} finds no value", opcode_text(opcode_));
    return stack_.back();
  }

  // How many values lie above the last mark, which goes.
  size_t pop_mark() {
    if (marks_.empty()) refuse("{} finds no mark", opcode_text(opcode_));
    const size_t count = stack_.size() - marks_.back();
    marks_.pop_back();
    return count;
  }

  // ---- opcodes

  bool step() {
    if (at_ == bytes_.size()) refuse("the pickle has no end");
    opcode_ = static_cast<uint8_t>(bytes_[at_++]);
    switch (opcode_) {
      case '.':
        return false;
      case '(':
        marks_.push_back(stack_.size());
        break;
      case 'N':
        push(Kind::None);
        break;
      case 0x88:
      case 0x89:
        push(Kind::Bool, opcode_ == 0x88);
        break;
      case 'K':
        push(Kind::Int, take_number<uint8_t>());
        break;
      case 'M':
        push(Kind::Int, take_number<uint16_t>());
        break;
      case 'J':
        push(Kind::Int, take_number<int32_t>());
        break;
      case 0x8a:
        push_long();
        break;
      case 'G':
        take(8);
        push(Kind::Float);
        break;
      case 'X':
        push_text();
        break;
      case ')':
        push_tuple(0);
        break;
      case 0x85:
      case 0x86:
      case 0x87:
        push_tuple(opcode_ - 0x84);
        break;
      case 't':
        push_tuple(pop_mark());
        break;
      case ']':
        push(Kind::List);
        break;
      case '}':
        push(Kind::Dict, num_dicts_++);
        break;
      default:
        return step_rest();
    }
    return true;
  }

  bool step_rest() {
    switch (opcode_) {
      case 'q':
        remember(take_number<uint8_t>());
        break;
      case 'r':
        remember(take_number<uint32_t>());
        break;
      case 'h':
        recall(take_number<uint8_t>());
        break;
      case 'j':
        recall(take_number<uint32_t>());
        break;
      case 'a':
        append(1);
        break;
      case 'e':
        append(pop_mark());
        break;
      case 's':
        set_items(2);
        break;
      case 'u':
        set_items(pop_mark());
        break;
      case 'c':
        push_global();
        break;
      case 'Q':
        push_storage();
        break;
      case 'R':
        reduce();
        break;
      case 'b':
        build();
        break;
      default:
        refuse("the pickle uses {}, which no tensor needs; is the file hostile?",
               opcode_text(opcode_));
    }
    return true;
  }

  void push_long() {
    const std::string_view digits = take(take_number<uint8_t>());
    if (digits.size() > 8) refuse("the pickle holds an integer of {} bytes", digits.size());
    uint64_t value = 0;
    for (size_t i = 0; i < digits.size(); ++i) {
      value |= uint64_t{static_cast<uint8_t>(digits[i])} << (8 * i);
    }
    const size_t spare = 64 - 8 * digits.size();  // the sign is the last byte's
    if (!digits.empty() && spare > 0) {
      value = static_cast<uint64_t>(static_cast<int64_t>(value << spare) >> spare);
    }
    push(Kind::Int, static_cast<int64_t>(value));
  }

  void push_text() {
    const auto size = take_number<uint32_t>();
    const size_t begin = at_;
    if (!is_utf8(take(size))) refuse("the pickle holds text that is not UTF-8");
    push(Kind::Text, static_cast<int64_t>(begin), size);
  }

  void push_tuple(size_t count) {
    if (stack_.size() - floor() < count) refuse("{} finds no value", opcode_text(opcode_));
    const size_t begin = heap_.members.size();
    heap_.members.insert(heap_.members.end(), stack_.end() - static_cast<ptrdiff_t>(count),
                         stack_.end());
    stack_.resize(stack_.size() - count);
    push(Kind::Tuple, static_cast<int64_t>(begin), static_cast<uint32_t>(count));
  }

  // A place in the memo is paid for by bytes of the pickle.
  void remember(uint32_t place) {
    if (place >= bytes_.size())
      refuse("{} names place {} of the memo", opcode_text(opcode_), place);
    const Value value = top();
    if (place >= memo_.size()) memo_.resize(place + size_t{1});
    memo_[place] = value;
  }

  void recall(uint32_t place) {
    if (place >= memo_.size() || !memo_[place]) {
      refuse("{} asks for place {} of the memo, where nothing is", opcode_text(opcode_), place);
    }
    stack_.push_back(*memo_[place]);
  }

  // What lists hold is of no use to anyone.
  void append(size_t count) {
    for (size_t i = 0; i < count; ++i) pop();
    if (top().kind != Kind::List) {
      refuse("{} appends to {}", opcode_text(opcode_), name_of(top().kind));
    }
  }

  void set_items(size_t count) {
    if (stack_.size() - floor() <= count || count % 2 != 0) {
      refuse("{} finds no dict with keys and values", opcode_text(opcode_));
    }
    const size_t first = stack_.size() - count;
    const Value& dict = stack_[first - 1];
    if (dict.kind != Kind::Dict && dict.kind != Kind::OrderedDict) {
      refuse("{} sets items of {}", opcode_text(opcode_), name_of(dict.kind));
    }
    for (size_t i = first; i < stack_.size(); i += 2) {
      heap_.items.push_back({dict.data, stack_[i], stack_[i + 1]});
    }
    stack_.resize(first);
  }

  void push_global() {
    const std::string_view module = take_line(), name = take_line();
    const PickleGlobal* global = find_global(module, name);
    if (global == nullptr) {
      refuse("the pickle names {}, which no tensor needs; is the file hostile?",
             in_quotes(fmt::format("{}.{}", module.substr(0, 120), name.substr(0, 120))));
    }
    push(Kind::Global, global - all_globals().data());
  }

  const PickleGlobal* global(Value value) const {
    return value.kind == Kind::Global ? &all_globals()[static_cast<size_t>(value.data)] : nullptr;
  }

  static std::string full_name(const PickleGlobal& global) {
    return fmt::format("{}.{}", global.module, global.name);
  }

  void push_storage() {
    const Value id = pop();
    if (id.kind == Kind::Tuple && id.count == 5) {
      const auto parts = heap_.members_of(id);
      const PickleGlobal* type = global(parts[1]);
      if (parts[0].kind == Kind::Text && heap_.text(parts[0]) == "storage" && type != nullptr &&
          type->is_storage() && parts[2].kind == Kind::Text && parts[4].kind == Kind::Int) {
        heap_.storages.push_back({heap_.text(parts[2]), type, parts[4].data});
        return push(Kind::Storage, static_cast<int64_t>(heap_.storages.size() - 1));
      }
    }
    refuse("the pickle has a persistent id that is no storage of tensors");
  }

  void reduce() {
    const Value arguments = pop(), function = pop();
    const PickleGlobal* called = global(function);
    if (called == nullptr || arguments.kind != Kind::Tuple) {
      refuse("REDUCE calls {} with {}", name_of(function.kind), name_of(arguments.kind));
    }
    const auto given = heap_.members_of(arguments);
    switch (called->use) {
      case PickleGlobal::Use::OrderedDict:
        if (given.empty()) return push(Kind::OrderedDict, num_dicts_++);
        break;
      case PickleGlobal::Use::Tensor:
      case PickleGlobal::Use::TensorOfDtype:
        return push_tensor(*called, given);
      case PickleGlobal::Use::Parameter:
        if (given.size() == 3 && given[0].kind == Kind::Tensor) {
          stack_.push_back(given[0]);
          return;
        }
        break;
      default:
        break;
    }
    refuse("REDUCE calls {} with {}, which is not how a tensor is made", full_name(*called),
           counted(given.size(), "argument"));
  }

  // storage, offset, shape, strides, requires_grad, hooks and, in the newer form, dtype.
  void push_tensor(const PickleGlobal& called, std::span<const Value> given) {
    const bool has_dtype = called.use == PickleGlobal::Use::TensorOfDtype;
    const size_t wanted = has_dtype ? 7 : 6;
    if (given.size() > wanted) {
      refuse(
          "{} has {} arguments, wanted {}: a conjugated or negated view? save it with "
          ".clone()",
          full_name(called), given.size(), wanted);
    }
    const PickleGlobal* dtype = has_dtype && given.size() == wanted ? global(given[6]) : nullptr;
    if (given.size() < wanted || given[0].kind != Kind::Storage || given[1].kind != Kind::Int ||
        given[2].kind != Kind::Tuple || given[3].kind != Kind::Tuple ||
        (has_dtype && (dtype == nullptr || dtype->use != PickleGlobal::Use::Dtype))) {
      refuse("{} is called with something else than a storage, its offset, shape and strides",
             full_name(called));
    }
    const Storage& storage = heap_.storages[static_cast<size_t>(given[0].data)];
    if (!has_dtype && storage.type->use == PickleGlobal::Use::StorageOfBytes) {
      refuse("{} is called with a storage without a dtype", full_name(called));
    }
    heap_.tensors.push_back({storage, has_dtype ? dtype->dtype : storage.type->dtype, given[1].data,
                             given[2], given[3]});
    push(Kind::Tensor, static_cast<int64_t>(heap_.tensors.size() - 1));
  }

  // torch's state dicts carry their modules' versions as an attribute: read over.
  void build() {
    const Value state = pop();
    if (top().kind == Kind::OrderedDict && state.kind == Kind::Dict) return;
    refuse("BUILD sets {} as the state of {}, which no tensor needs; is the file hostile?",
           name_of(state.kind), name_of(top().kind));
  }

  std::string_view bytes_;
  const std::string& file_;
  size_t at_ = 0;
  uint8_t opcode_ = 0;
  std::vector<Value> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::vector<std::optional<Value>> memo_;
  Heap heap_;
  int64_t num_dicts_ = 0;
};

}  // namespace

std::vector<PickledTensor> read_pickle(std::string_view bytes, const std::string& file) {
  return Unpickler(bytes, file).read();
}

}  // namespace moue
