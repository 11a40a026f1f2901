#include "hpack.h"

#include <array>
#include <cstdlib>

namespace grpcload {
namespace {

constexpr uint32_t kStaticEntries = 61;
constexpr uint32_t kStatusFirst = 8;  // the static entries 8 to 14 are :status with these values
constexpr int kStatusValues[] = {200, 204, 206, 304, 400, 404, 500};

// RFC 7541, appendix B: bits of the code of each byte, and of the end-of-string mark. The codes themselves follow,
// because the code is canonical: shorter ones first, and by byte among those of one length.
constexpr size_t kSymbols = 257;
constexpr size_t kLongestCode = 30;
constexpr uint8_t kCodeBits[kSymbols] = {
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6,  10, 10, 12, 13, 6,  8,  11, 10, 10, 8,  11, 8,  6,  6,  6,  5,  5,  5,  6,  6,  6,  6,  6,  6,  6,
    7,  8,  15, 6,  12, 10, 13, 6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
    7,  8,  7,  8,  13, 19, 13, 14, 6,  15, 5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,  6,  7,  6,  5,
    5,  6,  7,  7,  7,  7,  7,  15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24,
    24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22,
    23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26,
    27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23,
    22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
};

struct HuffmanTable {
  std::array<uint32_t, kLongestCode + 1> first_code{};
  std::array<uint32_t, kLongestCode + 1> first_symbol{};
  std::array<uint32_t, kLongestCode + 1> count{};
  std::array<uint16_t, kSymbols> symbols{};

  HuffmanTable() {
    uint32_t code = 0;
    uint32_t next = 0;
    for (size_t bits = 1; bits <= kLongestCode; ++bits) {
      code <<= 1;
      first_code[bits] = code;
      first_symbol[bits] = next;
      for (size_t symbol = 0; symbol < kSymbols; ++symbol) {
        if (kCodeBits[symbol] == bits) symbols[next++] = static_cast<uint16_t>(symbol);
      }
      count[bits] = next - first_symbol[bits];
      code += count[bits];
    }
  }
};

// Reads along a header block. After a failure everything that is read is zero or empty.
struct Reader {
  const uint8_t* at;
  const uint8_t* end;
  bool failed = false;

  uint32_t integer(int prefix_bits) {
    const uint32_t limit = (1u << prefix_bits) - 1;
    if (at == end) return fail();
    uint64_t value = *at++ & limit;
    if (value < limit) return static_cast<uint32_t>(value);
    for (int shift = 0; shift <= 28; shift += 7) {
      if (at == end) return fail();
      const uint8_t byte = *at++;
      value += uint64_t{byte & 0x7fu} << shift;
      if (!(byte & 0x80)) return value > UINT32_MAX ? fail() : static_cast<uint32_t>(value);
    }
    return fail();
  }

  void text(std::string& into) {
    into.clear();
    const bool coded = at != end && (*at & 0x80);
    const uint32_t size = integer(7);
    if (failed || size > static_cast<size_t>(end - at)) {
      fail();
      return;
    }
    const uint8_t* begin = at;
    at += size;
    if (!coded) {
      into.assign(reinterpret_cast<const char*>(begin), size);
    } else if (!huffman_decode(begin, size, into)) {
      fail();
    }
  }

  uint32_t fail() {
    failed = true;
    at = end;
    return 0;
  }
};

bool is_status(uint32_t index) { return index >= kStatusFirst && index < kStatusFirst + std::size(kStatusValues); }

void note(const std::string& name, uint32_t name_index, const std::string& value, Trailers& found) {
  if (is_status(name_index) || name == ":status") {
    found.http_status = std::atoi(value.c_str());
  } else if (name == "grpc-status") {
    found.grpc_status = std::atoi(value.c_str());
  } else if (name == "grpc-message") {
    found.grpc_message = value;
  }
}

// One literal field: its name by index or spelled out, then its value.
void read_literal(Reader& reader, int prefix_bits, Trailers& found) {
  static thread_local std::string name, value;
  const uint32_t index = reader.integer(prefix_bits);
  name.clear();
  if (index == 0) reader.text(name);
  reader.text(value);
  if (index > kStaticEntries) reader.fail();
  if (!reader.failed) note(name, index, value, found);
}

void append_text(std::string& block, const std::string& text) {
  constexpr size_t limit = 127;
  size_t rest = text.size();
  if (rest < limit) {
    block.push_back(static_cast<char>(rest));
  } else {
    block.push_back(static_cast<char>(limit));
    for (rest -= limit; rest >= 128; rest >>= 7) block.push_back(static_cast<char>((rest & 0x7f) | 0x80));
    block.push_back(static_cast<char>(rest));
  }
  block += text;
}

}  // namespace

void append_header(std::string& block, const std::string& name, const std::string& value) {
  block.push_back(0);
  append_text(block, name);
  append_text(block, value);
}

bool huffman_decode(const uint8_t* bytes, size_t size, std::string& text) {
  static const HuffmanTable table;
  uint32_t code = 0;
  size_t bits = 0;
  for (size_t i = 0; i < size * 8; ++i) {
    code = code << 1 | (bytes[i / 8] >> (7 - i % 8) & 1);
    if (++bits > kLongestCode) return false;
    if (code - table.first_code[bits] >= table.count[bits]) continue;
    const uint16_t symbol = table.symbols[table.first_symbol[bits] + code - table.first_code[bits]];
    if (symbol == kSymbols - 1) return false;
    text.push_back(static_cast<char>(symbol));
    code = 0;
    bits = 0;
  }
  return bits < 8 && code == (1u << bits) - 1;  // what is left is padding: fewer than eight bits, all ones
}

bool read_trailers(const uint8_t* block, size_t size, Trailers& found) {
  Reader reader{block, block + size};
  while (reader.at != reader.end) {
    const uint8_t kind = *reader.at;
    if (kind & 0x80) {
      const uint32_t index = reader.integer(7);
      if (index == 0 || index > kStaticEntries) reader.fail();
      if (is_status(index)) found.http_status = kStatusValues[index - kStatusFirst];
    } else if (kind & 0x40) {
      read_literal(reader, 6, found);  // "with indexing": into a table of no size, so to nowhere
    } else if (kind & 0x20) {
      reader.integer(5);  // a new size of the table, which can only be zero
    } else {
      read_literal(reader, 4, found);
    }
  }
  return !reader.failed;
}

}  // namespace grpcload
