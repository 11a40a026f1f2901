// A client with one connection, like a gRPC channel. Sends requests when told, or keeps some in flight.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "clock.h"
#include "connection.h"
#include "recorder.h"

namespace grpcload {

class Client : public Listener {
 public:
  Client(const std::string& host, const std::string& port, Recorder& recorder)
      : recorder_(recorder), connection_(host, port, *this) {}

  Connection& connection() { return connection_; }

  // Called once the connection is ready; from now on `in_flight` requests are kept in flight (0: none of its own).
  virtual void start(size_t in_flight) = 0;
  // Sends one request, or one message of several, that was scheduled at `intended`.
  virtual void request(int64_t intended) = 0;
  // Called repeatedly: cancels expired requests, and sends what may be sent.
  virtual void turn(int64_t now) = 0;
  // When turn() must be called next even though nothing arrives.
  virtual int64_t next_expiry() const { return kNever; }
  // No more requests of its own.
  virtual void stop() { refills_ = false; }
  // Whether every request has an outcome.
  virtual bool idle() const = 0;
  // Counts all requests without an outcome as unanswered.
  virtual void abandon() = 0;

 protected:
  Recorder& recorder_;
  Connection connection_;
  bool refills_ = false;
};

}  // namespace grpcload
