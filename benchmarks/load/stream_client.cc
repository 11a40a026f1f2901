#include "stream_client.h"

#include <stdexcept>

namespace grpcload {
namespace {

constexpr uint32_t kField1 = 1 << 3 | 2;  // of bytes
constexpr uint32_t kField3 = 3 << 3 | 2;

// A message of the Open Inference Protocol: field 1 is the text of an error.
Outcome outcome_of_response(std::string_view message) {
  FieldReader field(message);
  while (field.next()) {
    if (field.tag == kField1 && !field.bytes.empty()) return kInBandError;
  }
  return kOk;
}

// An inferd.v1.InferResult: field 3 is a google.rpc.Status, whose field 1 is the code.
Outcome outcome_of_result(std::string_view result) {
  FieldReader field(result);
  while (field.next()) {
    if (field.tag != kField3) continue;
    FieldReader status(field.bytes);
    while (status.next()) {
      if (status.tag == 1 << 3) return outcome_of(status.number);
    }
    return kUnknownStatus;
  }
  return kOk;
}

}  // namespace

void StreamClient::start(size_t in_flight) {
  refills_ = in_flight > 0;
  lines_.resize(shape_.streams);
  const int64_t now = now_ns();
  for (size_t i = 0; i < lines_.size(); ++i) {
    if (!connection_.can_open()) throw std::runtime_error("the server does not allow so many streams");
    lines_[i].in_flight = in_flight / lines_.size() + (i < in_flight % lines_.size());
    lines_[i].stream = &connection_.open(call_.headers, static_cast<int64_t>(i));
    refill(lines_[i], now);
  }
}

void StreamClient::request(int64_t intended) {
  Line& line = lines_[next_line_];
  next_line_ = (next_line_ + 1) % lines_.size();
  send(line, intended);
}

// Sends one message; on a stream that has ended, its requests fail at once.
void StreamClient::send(Line& line, int64_t intended) {
  for (size_t i = 0; i < shape_.packed; ++i) {
    recorder_.began(intended);
    if (line.stream != nullptr) {
      line.intended.push_back(intended);
    } else {
      recorder_.finished(intended, now_ns(), kTransport);
    }
  }
  if (line.stream != nullptr) connection_.send(*line.stream, call_.body, call_.body.size(), false);
}

void StreamClient::refill(Line& line, int64_t now) {
  while (refills_ && line.stream != nullptr && line.intended.size() + shape_.packed <= line.in_flight) send(line, now);
}

void StreamClient::on_message(Stream& stream, std::string_view message) {
  const int64_t now = now_ns();
  Line& line = lines_[static_cast<size_t>(stream.tag)];
  if (!shape_.counts_fields) {
    result(line, now, outcome_of_response(message), message.size());
  } else {
    FieldReader field(message);
    while (field.next()) {
      if (field.tag == kField1) result(line, now, outcome_of_result(field.bytes), field.bytes.size());
    }
  }
  refill(line, now);
}

void StreamClient::result(Line& line, int64_t now, Outcome outcome, size_t bytes) {
  if (line.intended.empty()) throw std::runtime_error("a stream gave more results than it was asked for");
  if (outcome == kOk && bytes < call_.min_response_bytes) outcome = kBadAnswer;
  if (outcome != kOk) recorder_.explain(outcome == kBadAnswer ? "a result was too small" : "a result was an error");
  recorder_.finished(line.intended.front(), now, outcome);
  line.intended.pop_front();
}

// When a stream ends, its open requests fail with its status; OK is no answer to a request either.
void StreamClient::on_end(Stream& stream, const Ending& ending) {
  const int64_t now = now_ns();
  Line& line = lines_[static_cast<size_t>(stream.tag)];
  const bool has_status = !ending.lost && ending.status != 0;
  const Outcome outcome = has_status ? outcome_of(static_cast<uint64_t>(ending.status)) : kTransport;
  if (!line.intended.empty()) recorder_.explain(ending.message);
  for (; !line.intended.empty(); line.intended.pop_front()) {
    recorder_.finished(line.intended.front(), now, outcome);
  }
  line.stream = nullptr;
}

// Half-closes each stream, so that the peer ends it after the last answer.
void StreamClient::stop() {
  Client::stop();
  for (Line& line : lines_) {
    if (line.stream != nullptr) connection_.send(*line.stream, call_.body, 0, true);
  }
}

bool StreamClient::idle() const {
  for (const Line& line : lines_) {
    if (!line.intended.empty()) return false;
  }
  return true;
}

void StreamClient::abandon() {
  const int64_t now = now_ns();
  for (Line& line : lines_) {
    for (; !line.intended.empty(); line.intended.pop_front()) {
      recorder_.finished(line.intended.front(), now, kUnanswered);
    }
  }
}

}  // namespace grpcload
