// Bytes of HTTP/2 (RFC 9113): big-endian numbers, frame headers, and the few constants that are used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace grpcload {

constexpr size_t kFrameHeader = 9;
constexpr size_t kMessagePrefix = 5;  // gRPC's own: one byte of flags, four of length
constexpr uint32_t kMaxWindow = 0x7fffffff;
constexpr uint32_t kDefaultWindow = 65535;

enum FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kRstStream = 3,
  kSettings = 4,
  kPing = 6,
  kGoaway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
};

enum FrameFlag : uint8_t { kAck = 0x1, kEndStream = 0x1, kEndHeaders = 0x4, kPadded = 0x8, kPriority = 0x20 };

enum Setting : uint16_t {
  kHeaderTableSize = 1,
  kEnablePush = 2,
  kMaxConcurrentStreams = 3,
  kInitialWindowSize = 4,
  kMaxFrameSize = 5,
};

// Error codes of RST_STREAM.
constexpr uint32_t kRefusedStream = 7;  // nothing has been done for the request
constexpr uint32_t kCancel = 8;         // the caller no longer wants the answer

inline uint16_t read16(const uint8_t* at) { return static_cast<uint16_t>(at[0] << 8 | at[1]); }
inline uint32_t read24(const uint8_t* at) { return uint32_t{at[0]} << 16 | uint32_t{at[1]} << 8 | at[2]; }
inline uint32_t read32(const uint8_t* at) { return uint32_t{at[0]} << 24 | read24(at + 1); }

inline void append16(std::string& out, uint16_t value) {
  const char bytes[] = {static_cast<char>(value >> 8), static_cast<char>(value)};
  out.append(bytes, sizeof bytes);
}

inline void append32(std::string& out, uint32_t value) {
  append16(out, static_cast<uint16_t>(value >> 16));
  append16(out, static_cast<uint16_t>(value));
}

inline void append_frame_header(std::string& out, size_t length, FrameType type, uint8_t flags, uint32_t stream) {
  const char head[] = {static_cast<char>(length >> 16), static_cast<char>(length >> 8), static_cast<char>(length),
                       static_cast<char>(type),         static_cast<char>(flags),       static_cast<char>(stream >> 24),
                       static_cast<char>(stream >> 16), static_cast<char>(stream >> 8), static_cast<char>(stream)};
  out.append(head, sizeof head);
}

inline void append_setting(std::string& out, Setting name, uint32_t value) {
  append16(out, name);
  append32(out, value);
}

}  // namespace grpcload
