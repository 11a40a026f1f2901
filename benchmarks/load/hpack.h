// Header compression (RFC 7541), as far as a gRPC client needs it that keeps no dynamic table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace grpcload {

// The relevant headers at the end of a call.
struct Trailers {
  int http_status = 0;   // 0 when the block had none, as trailers after a message have not
  int grpc_status = -1;  // -1 when the block had none
  std::string grpc_message;
};

// Appends one header, literal and never indexed: blocks made so mean the same on every connection and at any time.
void append_header(std::string& block, const std::string& name, const std::string& value);

// Reads a whole block; returns false when it is malformed or refers to a dynamic table, of which we announced none.
bool read_trailers(const uint8_t* block, size_t size, Trailers& found);

// Decodes the static Huffman code; returns false when `bytes` is not such a string.
bool huffman_decode(const uint8_t* bytes, size_t size, std::string& text);

}  // namespace grpcload
