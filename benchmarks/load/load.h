// Connects clients, schedules and records, and runs the loop until the measurement is over.
#pragma once

#include <memory>
#include <ostream>
#include <vector>

#include "client.h"
#include "options.h"
#include "recorder.h"
#include "schedule.h"
#include "stream_client.h"
#include "unary_client.h"

namespace grpcload {

// A single thread, so that the generator takes one core at most, and reports how much of it.
class Load {
 public:
  // Connects. Throws std::runtime_error.
  explicit Load(const Options& options);

  // Measures. Throws std::runtime_error when the server does not speak as it should. SIGTERM ends the measured time.
  void run();
  void write_json(std::ostream& out) const;
  void write_log(std::ostream& out) const { groups_.front()->recorder.write_log(out); }

 private:
  // Requests of one kind: their clients, schedule and outcomes.
  struct Group {
    CallShape call;
    Recorder recorder;
    Schedule schedule;
    std::vector<std::unique_ptr<Client>> clients;
    size_t next_client = 0;
  };

  void add_main_group();
  void add_probe_group();
  void await_settings();
  void begin_due(int64_t now);
  void turn_clients(int64_t now);
  void wait_until(int64_t then);
  int64_t next_event() const;
  void end_window(int64_t now);
  bool every_client(bool (*condition)(Client&)) const;
  void note_cpu(int64_t now);

  const Options& options_;
  StreamShape stream_shape_;
  std::vector<std::unique_ptr<Group>> groups_;
  int64_t begin_ = 0, end_ = kNever;  // of the window that is measured
  double cpu_at_begin_s_ = -1, cpu_s_ = -1;
};

}  // namespace grpcload
