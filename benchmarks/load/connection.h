// One HTTP/2 connection of a gRPC client: frames, flow control, and the life of its streams.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "hpack.h"
#include "message_reader.h"
#include "wire.h"

namespace grpcload {

struct Stream {
  uint32_t id = 0;                    // 0 while it belongs to no call
  int64_t window = 0;                 // bytes that the peer still takes
  const std::string* body = nullptr;  // what is sent, again and again, as long as `unsent` says
  size_t unsent = 0;
  size_t offset = 0;            // of the next byte within `body`
  bool ends = false;            // END_STREAM goes out with the last unsent byte
  bool queued = false;          // is in the queue of streams that may send
  uint32_t unacknowledged = 0;  // bytes received for which no window has been given back
  MessageReader reader;
  // The owner's:
  int64_t tag = 0;
  bool second_try = false;
  size_t response_bytes = 0;
};

// How a call ended: by a status, or by the loss of its stream or connection.
struct Ending {
  bool lost;
  int status;
  std::string_view message;
  bool refused_stream = false;  // lost, and may be tried again because it was not even looked at
};

class Listener {
 public:
  virtual ~Listener() = default;
  virtual void on_message(Stream& stream, std::string_view message) = 0;
  // The stream is free again when this returns. Must not open another stream.
  virtual void on_end(Stream& stream, const Ending& ending) = 0;
};

// Everything happens in the caller's thread, within receive() and flush(). Nothing here blocks after the constructor.
class Connection {
 public:
  // Connects, blocking, and queues the preface. Throws std::runtime_error.
  Connection(const std::string& host, const std::string& port, Listener& listener);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int fd() const { return fd_; }
  bool ready() const { return ready_; }  // the peer's settings have come
  bool lost() const { return lost_; }
  bool refuses() const { return lost_ || leaving_; }  // lost, or the peer said GOAWAY
  bool wants_to_write() const { return written_ < out_.size(); }
  bool can_open() const { return !refuses() && active_ < max_streams_ && next_id_ < kMaxWindow; }

  // Starts a call; `headers` is a whole header block. Requires can_open().
  Stream& open(const std::string& headers, int64_t tag);
  // Queues `size` more bytes of `body` on the stream. A stream has one body for all its life.
  void send(Stream& stream, const std::string& body, size_t size, bool ends);
  // Resets a stream without telling the listener.
  void cancel(Stream& stream);
  // The stream with this id while it lives, else nullptr.
  Stream* find(uint32_t id) const;

  template <typename Visit>
  void each_open(Visit visit) {
    for (Stream& stream : streams_) {
      if (stream.id != 0) visit(stream);
    }
  }

  void receive();  // reads what is there and hands it on
  void flush();    // writes what was queued, in as few calls as the socket takes it

 private:
  void handle(FrameType type, uint8_t flags, uint32_t id, const uint8_t* payload, size_t size);
  void on_data(uint8_t flags, uint32_t id, const uint8_t* payload, size_t size);
  void on_headers(uint8_t flags, uint32_t id, const uint8_t* payload, size_t size);
  void on_header_block(uint32_t id);
  void on_settings(uint8_t flags, const uint8_t* payload, size_t size);
  void on_window_update(uint32_t id, uint32_t increment);
  void on_goaway(uint32_t last_id);
  void give_back_window(Stream* stream, uint32_t size);
  void queue(Stream& stream);
  void pump();
  void send_some(Stream& stream);
  size_t place_of(uint32_t id) const { return (id >> 1) & (by_id_.size() - 1); }
  void place(Stream& stream);
  void release(Stream& stream);
  void end(Stream& stream, const Ending& ending);
  void lose(std::string_view why);

  Listener& listener_;
  int fd_ = -1;
  bool ready_ = false, lost_ = false, leaving_ = false;

  std::string out_;
  size_t written_ = 0;
  std::vector<uint8_t> in_;
  size_t filled_ = 0;

  std::string block_;        // a header block while its frames come in
  bool block_ends_ = false;  // the block ends its stream
  uint32_t block_stream_ = 0;

  uint32_t next_id_ = 1;
  uint32_t max_streams_ = 0;  // none before the peer's settings
  uint32_t max_frame_ = 16384;
  uint32_t initial_window_ = kDefaultWindow;
  int64_t window_ = kDefaultWindow;
  uint32_t unacknowledged_ = 0;

  uint32_t active_ = 0;
  std::deque<Stream> streams_;  // their addresses stay
  std::vector<Stream*> free_;
  std::vector<Stream*> by_id_;     // those that live; its size is a power of two
  std::deque<uint32_t> sendable_;  // ids of streams that have bytes and a window
};

}  // namespace grpcload
