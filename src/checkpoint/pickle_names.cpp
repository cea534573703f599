// Tables: globals of tensors, names of opcodes.
#include "checkpoint/pickle_names.h"

#include <fmt/format.h>

#include <algorithm>

namespace moue {
namespace {

using Use = PickleGlobal::Use;

constexpr auto kGlobals = std::to_array<PickleGlobal>({
    {"collections", "OrderedDict", Use::OrderedDict},
    {"torch._utils", "_rebuild_tensor_v2", Use::Tensor},
    {"torch._utils", "_rebuild_tensor_v3", Use::TensorOfDtype},
    {"torch._utils", "_rebuild_parameter", Use::Parameter},
    {"torch.storage", "UntypedStorage", Use::StorageOfBytes},
    {"torch", "BoolStorage", Use::Storage, Dtype::Bool},
    {"torch", "ByteStorage", Use::Storage, Dtype::U8},
    {"torch", "CharStorage", Use::Storage, Dtype::I8},
    {"torch", "ShortStorage", Use::Storage, Dtype::I16},
    {"torch", "IntStorage", Use::Storage, Dtype::I32},
    {"torch", "LongStorage", Use::Storage, Dtype::I64},
    {"torch", "HalfStorage", Use::Storage, Dtype::F16},
    {"torch", "BFloat16Storage", Use::Storage, Dtype::BF16},
    {"torch", "FloatStorage", Use::Storage, Dtype::F32},
    {"torch", "DoubleStorage", Use::Storage, Dtype::F64},
    {"torch", "ComplexFloatStorage", Use::Storage, Dtype::C64},
    {"torch", "uint16", Use::Dtype, Dtype::U16},
    {"torch", "uint32", Use::Dtype, Dtype::U32},
    {"torch", "uint64", Use::Dtype, Dtype::U64},
    {"torch", "float8_e4m3fn", Use::Dtype, Dtype::F8E4M3},
    {"torch", "float8_e5m2", Use::Dtype, Dtype::F8E5M2},
    {"torch", "float8_e4m3fnuz", Use::Dtype, Dtype::F8E4M3FNUZ},
    {"torch", "float8_e5m2fnuz", Use::Dtype, Dtype::F8E5M2FNUZ},
    {"torch", "float8_e8m0fnu", Use::Dtype, Dtype::F8E8M0},
    {"torch", "float4_e2m1fn_x2", Use::Dtype, Dtype::F4},
});

struct OpcodeName {
  uint8_t opcode;
  std::string_view name;
};

constexpr auto kOpcodes = std::to_array<OpcodeName>({
    {'(', "MARK"},
    {'.', "STOP"},
    {'0', "POP"},
    {'1', "POP_MARK"},
    {'2', "DUP"},
    {'F', "FLOAT"},
    {'I', "INT"},
    {'J', "BININT"},
    {'K', "BININT1"},
    {'L', "LONG"},
    {'M', "BININT2"},
    {'N', "NONE"},
    {'P', "PERSID"},
    {'Q', "BINPERSID"},
    {'R', "REDUCE"},
    {'S', "STRING"},
    {'T', "BINSTRING"},
    {'U', "SHORT_BINSTRING"},
    {'V', "UNICODE"},
    {'X', "BINUNICODE"},
    {'a', "APPEND"},
    {'b', "BUILD"},
    {'c', "GLOBAL"},
    {'d', "DICT"},
    {'}', "EMPTY_DICT"},
    {'e', "APPENDS"},
    {'g', "GET"},
    {'h', "BINGET"},
    {'i', "INST"},
    {'j', "LONG_BINGET"},
    {'l', "LIST"},
    {']', "EMPTY_LIST"},
    {'o', "OBJ"},
    {'p', "PUT"},
    {'q', "BINPUT"},
    {'r', "LONG_BINPUT"},
    {'s', "SETITEM"},
    {'t', "TUPLE"},
    {')', "EMPTY_TUPLE"},
    {'u', "SETITEMS"},
    {'G', "BINFLOAT"},
    {'B', "BINBYTES"},
    {'C', "SHORT_BINBYTES"},
    {0x80, "PROTO"},
    {0x81, "NEWOBJ"},
    {0x82, "EXT1"},
    {0x83, "EXT2"},
    {0x84, "EXT4"},
    {0x85, "TUPLE1"},
    {0x86, "TUPLE2"},
    {0x87, "TUPLE3"},
    {0x88, "NEWTRUE"},
    {0x89, "NEWFALSE"},
    {0x8a, "LONG1"},
    {0x8b, "LONG4"},
    {0x8c, "SHORT_BINUNICODE"},
    {0x8d, "BINUNICODE8"},
    {0x8e, "BINBYTES8"},
    {0x8f, "EMPTY_SET"},
    {0x90, "ADDITEMS"},
    {0x91, "FROZENSET"},
    {0x92, "NEWOBJ_EX"},
    {0x93, "STACK_GLOBAL"},
    {0x94, "MEMOIZE"},
    {0x95, "FRAME"},
    {0x96, "BYTEARRAY8"},
    {0x97, "NEXT_BUFFER"},
    {0x98, "READONLY_BUFFER"},
});

}  // namespace

std::span<const PickleGlobal> all_globals() { return kGlobals; }

const PickleGlobal* find_global(std::string_view module, std::string_view name) {
  const auto* found = std::ranges::find_if(kGlobals, [&](const PickleGlobal& global) {
    return global.name == name && global.module == module;
  });
  return found == kGlobals.end() ? nullptr : found;
}

std::string opcode_text(uint8_t opcode) {
  const auto* found = std::ranges::find(kOpcodes, opcode, &OpcodeName::opcode);
  return fmt::format("{} ({:#04x})", found == kOpcodes.end() ? "no opcode" : found->name, opcode);
}

}  // namespace moue
