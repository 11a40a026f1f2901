// What a connection does with each frame that it receives.
#include "connection.h"

namespace grpcload {
namespace {

// Window is given back when this much of it is used up, which saves a frame for each answer.
constexpr uint32_t kGiveBack = 1u << 28;

// Cuts padding, and the priority fields of HEADERS, off a payload; returns false when there is less than it claims.
bool strip(uint8_t flags, bool headers, const uint8_t*& payload, size_t& size) {
  size_t front = 0;
  size_t back = 0;
  if (flags & kPadded) {
    if (size == 0) return false;
    back = payload[0];
    front = 1;
  }
  if (headers && (flags & kPriority)) front += 5;
  if (front + back > size) return false;
  payload += front;
  size -= front + back;
  return true;
}

}  // namespace

void Connection::handle(FrameType type, uint8_t flags, uint32_t id, const uint8_t* payload, size_t size) {
  switch (type) {
    case kData:
      return on_data(flags, id, payload, size);
    case kHeaders:
    case kContinuation:
      return on_headers(type == kHeaders ? flags : flags & kEndHeaders, id, payload, size);
    case kSettings:
      return on_settings(flags, payload, size);
    case kWindowUpdate:
      return size == 4 ? on_window_update(id, read32(payload) & kMaxWindow) : lose("a malformed WINDOW_UPDATE");
    case kPing:
      if (size != 8) return lose("a malformed PING");
      if (flags & kAck) return;
      append_frame_header(out_, size, kPing, kAck, 0);
      out_.append(reinterpret_cast<const char*>(payload), size);
      return;
    case kRstStream:
      if (size != 4) return lose("a malformed RST_STREAM");
      if (Stream* stream = find(id)) {
        end(*stream, {true, 0, "the peer reset the stream", read32(payload) == kRefusedStream});
      }
      return;
    case kGoaway:
      return size >= 8 ? on_goaway(read32(payload) & kMaxWindow) : lose("a malformed GOAWAY");
    default:
      return;  // unknown kinds of frames are to be ignored
  }
}

void Connection::on_data(uint8_t flags, uint32_t id, const uint8_t* payload, size_t size) {
  Stream* stream = find(id);
  give_back_window(stream, static_cast<uint32_t>(size));
  if (!strip(flags, false, payload, size)) return lose("a malformed DATA frame");
  if (stream == nullptr) return;  // cancelled by us meanwhile
  stream->reader.feed({reinterpret_cast<const char*>(payload), size},
                      [&](std::string_view message) { listener_.on_message(*stream, message); });
  if ((flags & kEndStream) && stream->id == id) end(*stream, {true, 0, "the stream ended without a status"});
}

void Connection::give_back_window(Stream* stream, uint32_t size) {
  unacknowledged_ += size;
  if (unacknowledged_ >= kGiveBack) {
    append_frame_header(out_, 4, kWindowUpdate, 0, 0);
    append32(out_, unacknowledged_);
    unacknowledged_ = 0;
  }
  if (stream == nullptr) return;
  stream->unacknowledged += size;
  if (stream->unacknowledged < kGiveBack) return;
  append_frame_header(out_, 4, kWindowUpdate, 0, stream->id);
  append32(out_, stream->unacknowledged);
  stream->unacknowledged = 0;
}

void Connection::on_headers(uint8_t flags, uint32_t id, const uint8_t* payload, size_t size) {
  const bool continues = block_stream_ != 0;
  if (continues && id != block_stream_) return lose("a header block was interrupted");
  if (!continues) {
    if (!strip(flags, true, payload, size)) return lose("a malformed HEADERS frame");
    block_.clear();
    block_stream_ = id;
    block_ends_ = flags & kEndStream;
  }
  block_.append(reinterpret_cast<const char*>(payload), size);
  if (flags & kEndHeaders) {
    block_stream_ = 0;
    on_header_block(id);
  }
}

void Connection::on_header_block(uint32_t id) {
  // Without a dynamic table a block can be skipped: the headers before the answer say nothing that is counted.
  Stream* stream = find(id);
  if (!block_ends_ || stream == nullptr) return;
  Trailers trailers;
  if (!read_trailers(reinterpret_cast<const uint8_t*>(block_.data()), block_.size(), trailers)) {
    return lose("a malformed header block");
  }
  if (trailers.grpc_status < 0) return end(*stream, {true, 0, "an answer without a gRPC status"});
  end(*stream, {false, trailers.grpc_status, trailers.grpc_message});
}

void Connection::on_settings(uint8_t flags, const uint8_t* payload, size_t size) {
  if (flags & kAck) return;
  if (size % 6 != 0) return lose("malformed SETTINGS");
  if (!ready_) max_streams_ = kMaxWindow;
  ready_ = true;
  for (size_t at = 0; at < size; at += 6) {
    const uint32_t value = read32(payload + at + 2);
    switch (read16(payload + at)) {
      case kMaxConcurrentStreams:
        max_streams_ = value;
        break;
      case kMaxFrameSize:
        max_frame_ = value;
        break;
      case kInitialWindowSize:
        for (Stream& stream : streams_) {
          if (stream.id == 0) continue;
          stream.window += int64_t{value} - initial_window_;
          queue(stream);
        }
        initial_window_ = value;
        break;
      default:
        break;
    }
  }
  append_frame_header(out_, 0, kSettings, kAck, 0);
  pump();
}

void Connection::on_window_update(uint32_t id, uint32_t increment) {
  if (id == 0) {
    window_ += increment;
  } else if (Stream* stream = find(id)) {
    stream->window += increment;
    queue(*stream);
  }
  pump();
}

void Connection::on_goaway(uint32_t last_id) {
  leaving_ = true;
  for (Stream& stream : streams_) {
    if (stream.id > last_id) end(stream, {true, 0, "the peer went away"});
  }
}

}  // namespace grpcload
