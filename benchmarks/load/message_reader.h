// Cuts the bytes of a stream into gRPC messages, and looks into protobuf messages without their schema.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "wire.h"

namespace grpcload {

// Fed with the payloads of DATA frames. Messages that lie within one frame are handed on where they lie.
class MessageReader {
 public:
  void reset() { rest_.clear(); }

  template <typename OnMessage>
  void feed(std::string_view bytes, OnMessage on_message) {
    if (!rest_.empty()) {
      complete(bytes);
      if (!whole(rest_)) return;
      on_message(std::string_view(rest_).substr(kMessagePrefix));
      rest_.clear();
    }
    while (whole(bytes)) {
      const size_t size = kMessagePrefix + length(bytes);
      on_message(bytes.substr(kMessagePrefix, size - kMessagePrefix));
      bytes.remove_prefix(size);
    }
    rest_ = bytes;
  }

 private:
  static size_t length(std::string_view bytes) { return read32(reinterpret_cast<const uint8_t*>(bytes.data()) + 1); }
  static bool whole(std::string_view bytes) {
    return bytes.size() >= kMessagePrefix && bytes.size() >= kMessagePrefix + length(bytes);
  }

  // Moves from `bytes` to what is kept as much as its message still lacks.
  void complete(std::string_view& bytes) {
    take(bytes, kMessagePrefix);
    if (rest_.size() < kMessagePrefix) return;
    const size_t size = kMessagePrefix + length(rest_);
    rest_.reserve(size);
    take(bytes, size);
  }

  void take(std::string_view& bytes, size_t size) {
    if (rest_.size() >= size) return;
    const size_t taken = std::min(bytes.size(), size - rest_.size());
    rest_.append(bytes.substr(0, taken));
    bytes.remove_prefix(taken);
  }

  std::string rest_;
};

// Walks over the top-level fields of a protobuf message; stops at the first malformed one.
class FieldReader {
 public:
  explicit FieldReader(std::string_view message) : rest_(message) {}

  // Reads the next field: its tag (number and wire type), and its number or its bytes.
  bool next() {
    uint64_t key = 0;
    if (rest_.empty() || !varint(key)) return false;
    tag = static_cast<uint32_t>(key);
    bytes = {};
    number = 0;
    switch (tag & 7) {
      case 0:
        return varint(number);
      case 1:
        return cut(8);
      case 2:
        return varint(number) && cut(number);
      case 5:
        return cut(4);
      default:
        return false;
    }
  }

  uint32_t tag = 0;
  uint64_t number = 0;
  std::string_view bytes;

 private:
  bool cut(uint64_t size) {
    if (size > rest_.size()) return false;
    bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }

  bool varint(uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (!(byte & 0x80)) return true;
    }
    return false;
  }

  std::string_view rest_;
};

}  // namespace grpcload
