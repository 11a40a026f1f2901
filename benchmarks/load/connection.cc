#include "connection.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

namespace grpcload {
namespace {

constexpr size_t kReadBytes = 256 * 1024;
constexpr size_t kWrittenBytes = 4 << 20;  // so much may lie in front of what the socket has not taken yet
// So large that only calls which receive gigabytes ever need more; given back by halves.
constexpr uint32_t kOurWindow = 1u << 30;

int connect_to(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found)) {
    throw std::runtime_error(host + ": " + gai_strerror(error));
  }
  const int fd = socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, found->ai_protocol);
  const bool connected = fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0;
  const int error = errno;
  freeaddrinfo(found);
  if (!connected) {
    if (fd >= 0) close(fd);
    throw std::runtime_error(host + ":" + port + ": " + strerror(error));
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  return fd;
}

}  // namespace

Connection::Connection(const std::string& host, const std::string& port, Listener& listener)
    : listener_(listener), fd_(connect_to(host, port)), in_(kReadBytes), by_id_(1024) {
  out_ = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  std::string settings;
  append_setting(settings, kHeaderTableSize, 0);  // so that nothing we receive depends on what came before
  append_setting(settings, kEnablePush, 0);
  append_setting(settings, kInitialWindowSize, kOurWindow);
  append_frame_header(out_, settings.size(), kSettings, 0, 0);
  out_ += settings;
  append_frame_header(out_, 4, kWindowUpdate, 0, 0);
  append32(out_, kOurWindow - kDefaultWindow);
}

Connection::~Connection() { close(fd_); }

Stream* Connection::find(uint32_t id) const {
  Stream* stream = by_id_[place_of(id)];
  return stream != nullptr && stream->id == id ? stream : nullptr;
}

// Enters the stream into the table by id, which grows when an older stream still has its place.
void Connection::place(Stream& stream) {
  while (by_id_[place_of(stream.id)] != nullptr) {
    std::vector<Stream*> old(by_id_.size() * 2);
    old.swap(by_id_);
    for (Stream* other : old) {
      if (other != nullptr) by_id_[place_of(other->id)] = other;
    }
  }
  by_id_[place_of(stream.id)] = &stream;
}

Stream& Connection::open(const std::string& headers, int64_t tag) {
  if (free_.empty()) free_.push_back(&streams_.emplace_back());
  Stream& stream = *free_.back();
  free_.pop_back();
  stream.id = next_id_;
  next_id_ += 2;
  stream.window = initial_window_;
  stream.unsent = stream.offset = stream.unacknowledged = 0;
  stream.ends = stream.queued = false;
  stream.reader.reset();
  stream.tag = tag;
  stream.second_try = false;
  stream.response_bytes = 0;
  ++active_;
  place(stream);
  append_frame_header(out_, headers.size(), kHeaders, kEndHeaders, stream.id);
  out_ += headers;
  return stream;
}

void Connection::send(Stream& stream, const std::string& body, size_t size, bool ends) {
  stream.body = &body;
  stream.unsent += size;
  stream.ends = ends;
  if (stream.unsent == 0) {
    append_frame_header(out_, 0, kData, kEndStream, stream.id);
    return;
  }
  queue(stream);
  pump();
}

void Connection::queue(Stream& stream) {
  if (stream.queued || stream.unsent == 0 || stream.window <= 0) return;
  stream.queued = true;
  sendable_.push_back(stream.id);
}

void Connection::pump() {
  while (window_ > 0 && !sendable_.empty()) {
    if (Stream* stream = find(sendable_.front())) {
      send_some(*stream);
      if (stream->unsent > 0 && stream->window > 0) return;  // the connection's window is used up
      stream->queued = false;
    }
    sendable_.pop_front();
  }
}

// Frames as much of the stream's bytes as both windows allow.
void Connection::send_some(Stream& stream) {
  while (stream.unsent > 0) {
    const int64_t window = std::min(window_, stream.window);
    if (window <= 0) return;
    const size_t size = std::min({stream.unsent, size_t{max_frame_}, static_cast<size_t>(window)});
    stream.unsent -= size;
    stream.window -= static_cast<int64_t>(size);
    window_ -= static_cast<int64_t>(size);
    const bool last = stream.ends && stream.unsent == 0;
    append_frame_header(out_, size, kData, last ? kEndStream : 0, stream.id);
    for (size_t rest = size; rest > 0;) {
      const size_t part = std::min(rest, stream.body->size() - stream.offset);
      out_.append(*stream.body, stream.offset, part);
      stream.offset = (stream.offset + part) % stream.body->size();
      rest -= part;
    }
  }
}

void Connection::cancel(Stream& stream) {
  append_frame_header(out_, 4, kRstStream, 0, stream.id);
  append32(out_, kCancel);
  release(stream);
}

void Connection::release(Stream& stream) {
  by_id_[place_of(stream.id)] = nullptr;
  stream.id = 0;
  free_.push_back(&stream);
  --active_;
}

void Connection::end(Stream& stream, const Ending& ending) {
  listener_.on_end(stream, ending);
  release(stream);
}

void Connection::lose(std::string_view why) {
  if (lost_) return;
  lost_ = true;
  out_.clear();
  written_ = 0;
  for (Stream& stream : streams_) {
    if (stream.id != 0) end(stream, {true, 0, why});
  }
}

void Connection::flush() {
  while (!lost_ && written_ < out_.size()) {
    const ssize_t sent = ::send(fd_, out_.data() + written_, out_.size() - written_, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (sent < 0) return lose("the connection was lost while sending");
    written_ += static_cast<size_t>(sent);
    if (written_ < kWrittenBytes) continue;
    out_.erase(0, written_);
    written_ = 0;
  }
  out_.clear();
  written_ = 0;
}

void Connection::receive() {
  while (!lost_) {
    const size_t room = in_.size() - filled_;
    const ssize_t got = recv(fd_, in_.data() + filled_, room, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (got <= 0) return lose("the peer closed the connection");
    filled_ += static_cast<size_t>(got);
    size_t at = 0;
    while (!lost_ && filled_ - at >= kFrameHeader) {
      const uint8_t* head = in_.data() + at;
      const size_t size = read24(head);
      if (kFrameHeader + size > in_.size()) return lose("a frame was larger than any we allow");
      if (filled_ - at < kFrameHeader + size) break;
      handle(static_cast<FrameType>(head[3]), head[4], read32(head + 5) & kMaxWindow, head + kFrameHeader, size);
      at += kFrameHeader + size;
    }
    std::copy(in_.begin() + static_cast<ptrdiff_t>(at), in_.begin() + static_cast<ptrdiff_t>(filled_), in_.begin());
    filled_ -= at;
    if (static_cast<size_t>(got) < room) return;
  }
}

}  // namespace grpcload
