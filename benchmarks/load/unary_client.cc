#include "unary_client.h"

#include <algorithm>

namespace grpcload {
namespace {

// The value of grpc-timeout, which has at most eight digits: microseconds below 100 seconds, else milliseconds.
std::string timeout_text(int64_t nanoseconds) {
  constexpr int64_t most = 99'999'999;
  const int64_t microseconds = nanoseconds / 1000 + 1;
  const bool fits = microseconds <= most;
  return std::to_string(fits ? microseconds : std::min(microseconds / 1000 + 1, most)) + (fits ? "u" : "m");
}

}  // namespace

void UnaryClient::start(size_t in_flight) {
  refills_ = in_flight > 0;
  const int64_t now = now_ns();
  for (size_t i = 0; i < in_flight; ++i) request(now);
}

void UnaryClient::request(int64_t intended) {
  recorder_.began(intended);
  if (!connection_.refuses()) {
    waiting_.push_back({intended});
  } else {
    recorder_.finished(intended, now_ns(), kTransport);
  }
}

void UnaryClient::turn(int64_t now) {
  drop_expired(now);
  while (!waiting_.empty() && connection_.can_open()) {
    const Waiting request = waiting_.front();
    waiting_.pop_front();
    open(request, now);
  }
  // Waiting requests will never be sent.
  if (connection_.refuses()) fail_waiting(now, kTransport);
  if (shape_.fail_fast) fail_waiting(now, kRefusedHere);
  recorder_.held_back(waiting_.size());
}

void UnaryClient::fail_waiting(int64_t now, Outcome outcome) {
  for (; !waiting_.empty(); waiting_.pop_front()) recorder_.finished(waiting_.front().intended, now, outcome);
}

void UnaryClient::open(Waiting request, int64_t now) {
  const std::string* headers = &shape_.headers;
  if (shape_.deadline_ns != 0) {
    headers_ = shape_.headers;
    append_header(headers_, "grpc-timeout", timeout_text(request.intended + shape_.deadline_ns - now));
    headers = &headers_;
  }
  Stream& stream = connection_.open(*headers, request.intended);
  stream.second_try = request.second_try;
  if (shape_.deadline_ns != 0) {
    sent_.insert(request.second_try ? sent_.begin() : sent_.end(), Sent{stream.id, request.intended});
  }
  ++in_flight_;
  connection_.send(stream, shape_.body, shape_.body.size(), true);
}

// Requests are sent in the order of their deadlines, so those that expire are always the first ones.
void UnaryClient::drop_expired(int64_t now) {
  for (; !sent_.empty(); sent_.pop_front()) {
    Stream* stream = connection_.find(sent_.front().stream);
    if (stream == nullptr) continue;
    if (!expired(sent_.front().intended, now)) break;
    connection_.cancel(*stream);
    --in_flight_;
    finish(sent_.front().intended, now, kExpired);
  }
  // Not more than wait now: in a closed loop each one that expires adds one.
  for (size_t rest = waiting_.size(); rest > 0 && expired(waiting_.front().intended, now); --rest) {
    const int64_t intended = waiting_.front().intended;
    waiting_.pop_front();
    finish(intended, now, kExpired);
  }
}

int64_t UnaryClient::next_expiry() const {
  if (shape_.deadline_ns == 0) return kNever;
  int64_t first = kNever;
  if (!sent_.empty()) first = sent_.front().intended + shape_.deadline_ns;
  if (!waiting_.empty()) first = std::min(first, waiting_.front().intended + shape_.deadline_ns);
  return first;
}

void UnaryClient::on_end(Stream& stream, const Ending& ending) {
  --in_flight_;
  if (ending.refused_stream && !stream.second_try) {
    waiting_.push_front({stream.tag, true});  // gRPC's clients try again too, once, and tell nobody
    return;
  }
  Outcome outcome = ending.lost ? kTransport : outcome_of(static_cast<uint64_t>(ending.status));
  if (outcome == kOk && stream.response_bytes < shape_.min_response_bytes) outcome = kBadAnswer;
  if (outcome != kOk) recorder_.explain(outcome == kBadAnswer ? "an answer was too small" : ending.message);
  finish(stream.tag, now_ns(), outcome);
}

void UnaryClient::finish(int64_t intended, int64_t now, Outcome outcome) {
  recorder_.finished(intended, now, outcome);
  if (refills_ && !connection_.refuses()) request(now);
}

void UnaryClient::abandon() {
  const int64_t now = now_ns();
  fail_waiting(now, kUnanswered);
  connection_.each_open([&](Stream& stream) { recorder_.finished(stream.tag, now, kUnanswered); });
}

}  // namespace grpcload
