// The catalogue of pickles that must be refused.
#include <fmt/format.h>

#include <utility>

#include "support/pickles.h"

namespace moue::test {
namespace {

using namespace std::string_literals;

constexpr std::string_view kHostile = ", which no tensor needs; is the file hostile?";
const std::vector<int64_t> kShape = {2, 3}, kStrides = {3, 1};

FileCase pickle(std::string name, const std::string& bytes, std::string message) {
  return {std::move(name), torch_file(bytes), std::move(message)};
}

std::string good_item() { return pickled_text("a") + pickled_tensor(0, kShape, kStrides); }

std::string times(std::string_view text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

// Every opcode that pickle has and tensors do not need.
std::vector<FileCase> foreign_opcodes() {
  const std::vector<std::pair<std::string, std::string>> kOpcodes = {
      {"0", "POP (0x30)"},
      {"1", "POP_MARK (0x31)"},
      {"2", "DUP (0x32)"},
      {"F1.5\n", "FLOAT (0x46)"},
      {"I1\n", "INT (0x49)"},
      {"L1L\n", "LONG (0x4c)"},
      {"Pid\n", "PERSID (0x50)"},
      {"S'a'\n", "STRING (0x53)"},
      {"T\1\0\0\0a"s, "BINSTRING (0x54)"},
      {"U\1a", "SHORT_BINSTRING (0x55)"},
      {"Va\n", "UNICODE (0x56)"},
      {"d", "DICT (0x64)"},
      {"g0\n", "GET (0x67)"},
      {"ios\nsystem\n", "INST (0x69)"},
      {"l", "LIST (0x6c)"},
      {"o", "OBJ (0x6f)"},
      {"p0\n", "PUT (0x70)"},
      {"B\1\0\0\0a"s, "BINBYTES (0x42)"},
      {"C\1a", "SHORT_BINBYTES (0x43)"},
      {"\x80\x02", "PROTO (0x80)"},
      {"\x81", "NEWOBJ (0x81)"},
      {"\x82\1", "EXT1 (0x82)"},
      {"\x83\1\0"s, "EXT2 (0x83)"},
      {"\x84\1\0\0\0"s, "EXT4 (0x84)"},
      {"\x8b\1\0\0\0\1"s, "LONG4 (0x8b)"},
      {"\x8c\1a", "SHORT_BINUNICODE (0x8c)"},
      {"\x8d\1\0\0\0\0\0\0\0a"s, "BINUNICODE8 (0x8d)"},
      {"\x8e\1\0\0\0\0\0\0\0a"s, "BINBYTES8 (0x8e)"},
      {"\x8f", "EMPTY_SET (0x8f)"},
      {"\x90", "ADDITEMS (0x90)"},
      {"\x91", "FROZENSET (0x91)"},
      {"\x92", "NEWOBJ_EX (0x92)"},
      {"\x93", "STACK_GLOBAL (0x93)"},
      {"\x94", "MEMOIZE (0x94)"},
      {"\x95\1\0\0\0\0\0\0\0"s, "FRAME (0x95)"},
      {"\x96\1\0\0\0\0\0\0\0a"s, "BYTEARRAY8 (0x96)"},
      {"\x97", "NEXT_BUFFER (0x97)"},
      {"\x98", "READONLY_BUFFER (0x98)"},
      {"\xff", "no opcode (0xff)"},
      {"\n", "no opcode (0x0a)"}};
  std::vector<FileCase> cases;
  for (const auto& [bytes, name] : kOpcodes) {
    cases.push_back(pickle(name, "\x80\x02" + bytes + ".",
                           fmt::format("the pickle uses {}{}", name, kHostile)));
  }
  return cases;
}

// Calls that would do harm where pickles are run.
std::vector<FileCase> foreign_globals(const std::string& canary) {
  const std::string touch = "touch " + canary;
  const std::vector<std::pair<std::string, std::string>> kGlobals = {
      {"os", "system"},
      {"posix", "system"},
      {"nt", "system"},
      {"builtins", "eval"},
      {"builtins", "exec"},
      {"__builtin__", "eval"},
      {"builtins", "getattr"},
      {"builtins", "open"},
      {"builtins", "__import__"},
      {"builtins", "compile"},
      {"subprocess", "Popen"},
      {"subprocess", "check_output"},
      {"runpy", "_run_code"},
      {"importlib", "import_module"},
      {"pickle", "loads"},
      {"shutil", "rmtree"},
      {"webbrowser", "open"},
      {"numpy", "load"},
      {"torch", "load"},
      {"torch.hub", "load"},
      {"torch", "save"},
      {"torch._utils", "_rebuild_qtensor"},
      {"torch._utils", "_rebuild_parameter_with_state"},
      {"torch._utils", "_rebuild_device_tensor_from_numpy"},
      {"torch.jit", "load"},
      {"collections", "defaultdict"},
      {"collections", "OrderedDict.__init__"},
      {"collections.abc", "OrderedDict"},
      {"torch", "FloatStorage.from_file"},
      {"torch", "float32"},
      {"torch", "Size"},
      {"", ""}};
  std::vector<FileCase> cases;
  for (const auto& [module, name] : kGlobals) {
    cases.push_back(
        pickle(fmt::format("{}.{}", module, name),
               "\x80\x02" + pickled_global(module, name) + "(" + pickled_text(touch) + "tR.",
               fmt::format("the pickle names '{}.{}'{}", module, name, kHostile)));
  }
  const std::string late = pickled_global("posix", "system") + "(" + pickled_text(touch) + "tR";
  cases.push_back(pickle("a call behind good tensors",
                         pickled_dict(good_item() + pickled_text("b") + late),
                         fmt::format("the pickle names 'posix.system'{}", kHostile)));
  return cases;
}

std::vector<FileCase> broken_machines() {
  const auto raw = [](std::string name, const std::string& bytes, std::string message) {
    return pickle(std::move(name), "\x80\x02" + bytes, std::move(message));
  };
  const std::string ordered = pickled_global("collections", "OrderedDict") + ")R";
  return {
      pickle("an empty pickle", "", "the pickle does not start with protocol 2, torch.save's own"),
      pickle("protocol 0", "(dp0\n.",
             "the pickle does not start with protocol 2, torch.save's own"),
      pickle("protocol 5", "\x80\x05}.",
             "the pickle does not start with protocol 2, torch.save's own"),
      raw("no end", "}", "the pickle has no end"),
      raw("bytes behind the end", "}.x", "1 byte follow the pickle"),
      raw("two values", "}}.", "the pickle ends with more than one value"),
      raw("no value", ".", "the pickle ends with more than one value"),
      raw("an open mark", "}(.", "the pickle ends with more than one value"),
      raw("None", "N.", "the pickle is None, wanted a dict of names and tensors"),
      raw("a list", "].", "the pickle is a list, wanted a dict of names and tensors"),
      raw("a text", pickled_text("a") + ".",
          "the pickle is a text, wanted a dict of names and tensors"),
      raw("text cut off",
          "X\xff\xff\xff\xff"
          "a.",
          "the pickle ends inside BINUNICODE (0x58)"),
      raw("a number cut off", "J\1", "the pickle ends inside BININT (0x4a)"),
      raw("a long cut off", "\x8a\x08\1", "the pickle ends inside LONG1 (0x8a)"),
      raw("a global cut off", "cos", "the pickle ends inside GLOBAL (0x63)"),
      raw("a long of 9 bytes", "\x8a\x09" + std::string(9, '\1') + ".",
          "the pickle holds an integer of 9 bytes"),
      raw("text that is no UTF-8", pickled_text("\xff\xfe") + ".",
          "the pickle holds text that is not UTF-8"),
      raw("a surrogate", pickled_text("\xed\xa0\x80") + ".",
          "the pickle holds text that is not UTF-8"),
      raw("a tuple of nothing", "\x86.", "TUPLE2 (0x86) finds no value"),
      raw("a tuple without a mark", "NNt.", "TUPLE (0x74) finds no mark"),
      raw("items without a dict", "(NNu.", "SETITEMS (0x75) finds no dict with keys and values"),
      raw("items of a list", "](NNu.", "SETITEMS (0x75) sets items of a list"),
      raw("an odd number of items", "}(Nu.", "SETITEMS (0x75) finds no dict with keys and values"),
      raw("an item of a tuple", ")NNs.", "SETITEM (0x73) sets items of a tuple"),
      raw("appending to a dict", "}Na.", "APPEND (0x61) appends to a dict"),
      raw("appending to nothing", "Na.", "APPEND (0x61) finds no value"),
      raw("a memo of nothing", "q\0."s, "BINPUT (0x71) finds no value"),
      raw("a far place of the memo", "}r\xff\xff\xff\xff.",
          "LONG_BINPUT (0x72) names place 4294967295 of the memo"),
      raw("an empty place of the memo", "h\5.",
          "BINGET (0x68) asks for place 5 of the memo, where nothing is"),
      raw("a hole of the memo", "}q\3h\1.",
          "BINGET (0x68) asks for place 1 of the memo, where nothing is"),
      raw("reaching below a mark", "}(s.", "SETITEM (0x73) finds no dict with keys and values"),
      raw("a call of a text", pickled_text("os.system") + ")R.",
          "REDUCE calls a text with a tuple"),
      raw("a call of a storage type", pickled_global("torch", "FloatStorage") + "K\5\x85R.",
          "REDUCE calls torch.FloatStorage with 1 argument, which is not how a tensor is made"),
      raw("a call without a tuple", pickled_global("collections", "OrderedDict") + "]R.",
          "REDUCE calls a global with a list"),
      raw("an OrderedDict of arguments", pickled_global("collections", "OrderedDict") + "]\x85R.",
          "REDUCE calls collections.OrderedDict with 1 argument, which is not how a tensor is "
          "made"),
      raw("a parameter of no tensor",
          pickled_global("torch._utils", "_rebuild_parameter") + "N\x88}\x87R.",
          "REDUCE calls torch._utils._rebuild_parameter with 3 arguments, which is not how a "
          "tensor is made"),
      raw("building a dict", "}}b.",
          fmt::format("BUILD sets a dict as the state of a dict{}", kHostile)),
      raw("building a global", pickled_global("torch", "FloatStorage") + "}b.",
          fmt::format("BUILD sets a dict as the state of a global{}", kHostile)),
      raw("building with a tuple",
          ordered + "N}\x86"
                    "b.",
          fmt::format("BUILD sets a tuple as the state of an OrderedDict{}", kHostile)),
      raw("an id that is a text", pickled_text("0") + "Q.",
          "the pickle has a persistent id that is no storage of tensors"),
      raw("an id of another kind",
          "(" + pickled_text("module") + pickled_global("torch", "FloatStorage") +
              pickled_text("0") + pickled_text("cpu") + "K\6tQ.",
          "the pickle has a persistent id that is no storage of tensors"),
      raw("an id with a call as its type",
          "(" + pickled_text("storage") + pickled_global("torch._utils", "_rebuild_parameter") +
              pickled_text("0") + pickled_text("cpu") + "K\6tQ.",
          "the pickle has a persistent id that is no storage of tensors"),
  };
}

std::vector<FileCase> broken_tensors() {
  const auto tensor = [](std::string name, const std::string& value, std::string message) {
    return pickle(std::move(name), pickled_dict(pickled_text("a") + value), std::move(message));
  };
  const auto reach = [](std::string_view shape, std::string_view strides, std::string_view offset) {
    return fmt::format(
        "tensor 'a': shape {}, strides {} and offset {} reach beyond its storage of 6 elements",
        shape, strides, offset);
  };
  constexpr int64_t kLarge = int64_t{1} << 62;
  const std::string floats = pickled_storage("FloatStorage", "0", 6);
  const std::string v3 = pickled_global("torch._utils", "_rebuild_tensor_v3");
  const std::string hooks = "\x89" + pickled_global("collections", "OrderedDict") + ")R";
  const std::string six = "K\0"s + pickled_tuple({6}) + pickled_tuple({1}) + hooks;
  return {
      tensor("one row too many", pickled_tensor(0, {3, 3}, kStrides),
             reach("[3, 3]", "[3, 1]", "0")),
      tensor("an offset too far", pickled_tensor(1, kShape, kStrides),
             reach("[2, 3]", "[3, 1]", "1")),
      tensor("an offset beyond the storage", pickled_tensor(7, {0}, {1}), reach("[0]", "[1]", "7")),
      tensor("a negative offset", pickled_tensor(-1, kShape, kStrides),
             reach("[2, 3]", "[3, 1]", "-1")),
      tensor("a negative size", pickled_tensor(0, {-2, 3}, kStrides),
             reach("[-2, 3]", "[3, 1]", "0")),
      tensor("a negative stride", pickled_tensor(3, kShape, {-3, 1}),
             reach("[2, 3]", "[-3, 1]", "3")),
      tensor("a large stride", pickled_tensor(0, kShape, {kLarge, 1}),
             reach("[2, 3]", "[4611686018427387904, 1]", "0")),
      tensor("strides that overflow", pickled_tensor(0, {9, 3}, {kLarge, 1}),
             reach("[9, 3]", "[4611686018427387904, 1]", "0")),
      tensor("sizes that overflow", pickled_tensor(0, {kLarge, kLarge}, {0, 0}),
             reach("[4611686018427387904, 4611686018427387904]", "[0, 0]", "0")),
      tensor("a product that wraps to 0", pickled_tensor(0, {kLarge, 4}, {0, 0}),
             reach("[4611686018427387904, 4]", "[0, 0]", "0")),
      tensor(
          "elements repeated", pickled_tensor(0, {1'000'000}, {0}),
          "tensor 'a': shape [1000000] has more elements than its storage of 6 elements; save it "
          "with .contiguous()"),
      tensor(
          "windows that overlap", pickled_tensor(0, {4, 3}, {1, 1}),
          "tensor 'a': shape [4, 3] has more elements than its storage of 6 elements; save it with "
          ".contiguous()"),
      tensor("fewer strides", pickled_tensor(0, {2, 3}, {1}),
             "tensor 'a' has 2 dimensions and 1 stride"),
      tensor("17 dimensions",
             pickled_tensor(0, std::vector<int64_t>(17, 1), std::vector<int64_t>(17, 1)),
             "tensor 'a' has 17 dimensions, wanted at most 16"),
      tensor("a shape of texts",
             pickled_global("torch._utils", "_rebuild_tensor_v2") + "(" + floats + "K\0("s +
                 pickled_text("2") + "t(K\1t" + hooks + "tR",
             "tensor 'a': its shape holds a text"),
      tensor("a stride that is None",
             pickled_global("torch._utils", "_rebuild_tensor_v2") + "(" + floats + "K\0(K\2t(Nt"s +
                 hooks + "tR",
             "tensor 'a': its strides holds None"),
      tensor("a shape that is a list",
             pickled_global("torch._utils", "_rebuild_tensor_v2") + "(" + floats + "K\0]"s + ")" +
                 hooks + "tR",
             "torch._utils._rebuild_tensor_v2 is called with something else than a storage, its "
             "offset, shape and strides"),
      tensor("no arguments", pickled_global("torch._utils", "_rebuild_tensor_v2") + ")R",
             "torch._utils._rebuild_tensor_v2 is called with something else than a storage, its "
             "offset, shape and strides"),
      tensor("a storage told larger",
             pickled_tensor(0, {7}, {1}, pickled_storage("FloatStorage", "0", 7)),
             "tensor 'a': its storage '0' has 24 bytes, the pickle says 28"),
      tensor("a storage told smaller",
             pickled_tensor(0, {5}, {1}, pickled_storage("FloatStorage", "0", 5)),
             "tensor 'a': its storage '0' has 24 bytes, the pickle says 20"),
      tensor("a storage of 2^61 numbers",
             pickled_tensor(0, {6}, {1}, pickled_storage("DoubleStorage", "0", kLarge)),
             "tensor 'a': its storage '0' has 24 bytes, the pickle says 18446744073709551615"),
      tensor("a storage of -1 numbers",
             pickled_tensor(0, {6}, {1}, pickled_storage("FloatStorage", "0", -1)),
             "tensor 'a': its storage has -1 elements"),
      tensor("a storage that is not there",
             pickled_tensor(0, {6}, {1}, pickled_storage("FloatStorage", "1", 6)),
             "tensor 'a' lies in storage '1', which the zip file lacks"),
      tensor("a storage outside",
             pickled_tensor(0, {6}, {1}, pickled_storage("FloatStorage", "../version", 6)),
             "tensor 'a' lies in storage '../version', which the zip file lacks"),
      tensor("bytes without a dtype",
             pickled_tensor(0, {24}, {1}, pickled_storage("UntypedStorage", "0", 24)),
             "torch._utils._rebuild_tensor_v2 is called with a storage without a dtype"),
      tensor("a storage as dtype",
             v3 + "(" + floats + six + pickled_global("torch", "FloatStorage") + "tR",
             "torch._utils._rebuild_tensor_v3 is called with something else than a storage, its "
             "offset, "
             "shape and strides"),
      tensor(
          "pairs of FP4 in strides",
          v3 + "(" + pickled_storage("UntypedStorage", "0", 24) + "K\0"s + pickled_tuple({4, 6}) +
              pickled_tuple({1, 4}) + hooks + pickled_global("torch", "float4_e2m1fn_x2") + "tR",
          "tensor 'a': it is [4, 6] of FP4, wanted a contiguous one; save it with .contiguous()"),
      tensor("metadata",
             pickled_global("torch._utils", "_rebuild_tensor_v2") + "(" + floats + six + "}tR",
             "torch._utils._rebuild_tensor_v2 has 7 arguments, wanted 6: a conjugated or negated "
             "view? save it "
             "with .clone()"),
      pickle("a name twice", pickled_dict(good_item() + good_item()), "tensor 'a' stands twice"),
      pickle("a number as a name", pickled_dict("K\7" + pickled_tensor(0, kShape, kStrides)),
             "wanted tensors by name and nothing else, but a key is an int"),
      pickle("a dict among tensors", pickled_dict(good_item() + pickled_text("more") + "}"),
             "wanted tensors by name and nothing else, but 'more' is a dict"),
      pickle("a storage among tensors", pickled_dict(pickled_text("raw") + floats),
             "wanted tensors by name and nothing else, but 'raw' is a storage"),
  };
}

// What would take memory or stack without bound where it is built.
std::vector<FileCase> bombs() {
  std::string laughs = "\x80\x02)q\0"s;
  for (int i = 0; i < 60; ++i) laughs += "h\0h\0\x86q\0"s;  // 2^60 empty tuples
  const std::string deep = "\x80\x02" + times("(", 300'000) + times("t", 300'000) + ".";
  return {pickle("a tuple of 2^60", laughs + ".", "the pickle ends with more than one value"),
          pickle("300,000 tuples in each other", deep,
                 "the pickle is a tuple, wanted a dict of names and tensors"),
          pickle("300,000 marks", "\x80\x02" + times("(", 300'000) + ".",
                 "the pickle ends with more than one value"),
          pickle("300,000 lists", "\x80\x02" + times("]", 300'000) + ".",
                 "the pickle ends with more than one value"),
          pickle("a list in itself", "\x80\x02]q\0h\0a."s,
                 "the pickle is a list, wanted a dict of names and tensors"),
          pickle("a dict in itself", "\x80\x02}q\0"s + pickled_text("a") + "h\0s."s,
                 "wanted tensors by name and nothing else, but 'a' is a dict"),
          pickle("a long line",
                 "\x80\x02"
                 "c" +
                     std::string(300'000, 'm') + "\nx\n.",
                 "the pickle names '" + std::string(120, 'm') + "...'" + std::string(kHostile))};
}

}  // namespace

std::vector<FileCase> malformed_pickles(const std::string& canary) {
  std::vector<FileCase> all;
  for (const auto& part :
       {foreign_opcodes(), foreign_globals(canary), broken_machines(), broken_tensors(), bombs()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace moue::test
