#include "load.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <stdexcept>

namespace grpcload {
namespace {

constexpr double kSettingsWithinS = 10;
constexpr double kWaitAfterEndS = 5;  // for answers to what was asked within the window

volatile sig_atomic_t is_told_to_end = 0;

double cpu_seconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

CallShape make_call(const Options& options, const std::string& method, const std::string& message) {
  CallShape call;
  append_header(call.headers, ":method", "POST");
  append_header(call.headers, ":scheme", "http");
  append_header(call.headers, ":path", method);
  append_header(call.headers, ":authority", options.host + ":" + options.port);
  append_header(call.headers, "content-type", "application/grpc");
  append_header(call.headers, "te", "trailers");
  append_header(call.headers, "user-agent", "grpcload");
  for (const auto& [name, value] : options.headers) append_header(call.headers, name, value);
  call.body.push_back(0);  // not compressed
  append32(call.body, static_cast<uint32_t>(message.size()));
  call.body += message;
  return call;
}

}  // namespace

Load::Load(const Options& options) : options_(options) {
  add_main_group();
  if (!options.probe.empty()) add_probe_group();
  if (!options.log.empty()) groups_.front()->recorder.keep_requests();
}

void Load::add_main_group() {
  auto group = std::make_unique<Group>();
  group->call = make_call(options_, options_.method, options_.data);
  group->call.deadline_ns = to_ns(options_.deadline_ms / 1e3);
  group->call.fail_fast = options_.fail_fast;
  group->call.min_response_bytes = options_.min_response_bytes;
  stream_shape_ = {options_.streams, options_.packed, options_.count_field};
  if (options_.poisson_per_s > 0) {
    const double messages_per_s = options_.poisson_per_s / static_cast<double>(options_.packed);
    group->schedule = Schedule::poisson(1e9 / messages_per_s, options_.seed);
  }
  for (size_t i = 0; i < options_.connections; ++i) {
    std::unique_ptr<Client> client;
    if (options_.stream) {
      client =
          std::make_unique<StreamClient>(options_.host, options_.port, group->recorder, group->call, stream_shape_);
    } else {
      client = std::make_unique<UnaryClient>(options_.host, options_.port, group->recorder, group->call);
    }
    group->clients.push_back(std::move(client));
  }
  groups_.push_back(std::move(group));
}

void Load::add_probe_group() {
  auto group = std::make_unique<Group>();
  group->call = make_call(options_, options_.probe, options_.probe_data);
  group->schedule = Schedule::regular(options_.probe_interval_ms * 1e6);
  group->clients.push_back(std::make_unique<UnaryClient>(options_.host, options_.port, group->recorder, group->call));
  groups_.push_back(std::move(group));
}

bool Load::every_client(bool (*condition)(Client&)) const {
  for (const auto& group : groups_) {
    for (const auto& client : group->clients) {
      if (!condition(*client)) return false;
    }
  }
  return true;
}

void Load::await_settings() {
  const int64_t give_up = now_ns() + to_ns(kSettingsWithinS);
  while (!every_client([](Client& client) { return client.connection().ready(); })) {
    if (!every_client([](Client& client) { return !client.connection().lost(); }) || now_ns() > give_up) {
      throw std::runtime_error("the server does not greet as an HTTP/2 server does");
    }
    wait_until(give_up);
  }
}

void Load::run() {
  prctl(PR_SET_TIMERSLACK, 1000);  // wake close to the intended moments, not 50 microseconds later
  await_settings();
  signal(SIGTERM, [](int) { is_told_to_end = 1; });
  begin_ = now_ns() + to_ns(options_.warmup_s);
  end_ = begin_ + to_ns(options_.duration_s);
  for (const auto& group : groups_) {
    group->recorder.set_window(begin_, end_);
    group->schedule.start(now_ns());
    const size_t in_flight = group == groups_.front() ? options_.closed : 0;
    const size_t clients = group->clients.size();
    for (size_t i = 0; i < clients; ++i) group->clients[i]->start(in_flight / clients + (i < in_flight % clients));
  }
  const auto idle = [](Client& client) { return client.idle(); };
  const int64_t wait = to_ns(std::max(kWaitAfterEndS, options_.deadline_ms / 1e3 + 1));
  bool stopped = false;
  for (int64_t now = now_ns(); now < end_ + wait && !(stopped && every_client(idle)); now = now_ns()) {
    if (is_told_to_end && now < end_) end_window(now);
    note_cpu(now);
    begin_due(std::min(now, end_ - 1));
    turn_clients(now);
    if (now >= end_ && !stopped) {
      stopped = true;
      for (const auto& group : groups_) {
        for (const auto& client : group->clients) client->stop();
      }
    }
    wait_until(stopped ? end_ + wait : next_event());
  }
  for (const auto& group : groups_) {
    for (const auto& client : group->clients) client->abandon();
  }
}

// Nothing is scheduled for later than `now`.
void Load::end_window(int64_t now) {
  end_ = std::max(now, begin_ + 1);
  for (const auto& group : groups_) group->recorder.set_window(begin_, end_);
}

void Load::note_cpu(int64_t now) {
  if (cpu_at_begin_s_ < 0 && now >= begin_) cpu_at_begin_s_ = cpu_seconds();
  if (cpu_s_ < 0 && now >= end_) cpu_s_ = cpu_seconds() - cpu_at_begin_s_;
}

// Sends the requests that are due.
void Load::begin_due(int64_t now) {
  for (const auto& group : groups_) {
    for (; group->schedule.next() <= now; group->schedule.advance()) {
      group->clients[group->next_client]->request(group->schedule.next());
      group->next_client = (group->next_client + 1) % group->clients.size();
    }
  }
}

void Load::turn_clients(int64_t now) {
  for (const auto& group : groups_) {
    for (const auto& client : group->clients) client->turn(now);
  }
}

int64_t Load::next_event() const {
  int64_t next = now_ns() < begin_ ? begin_ : end_;
  for (const auto& group : groups_) next = std::min(next, group->schedule.next());
  return next;
}

// Writes what is queued, then waits for something to arrive, for a request to expire, or until `then`.
void Load::wait_until(int64_t then) {
  static std::vector<pollfd> polled;
  static std::vector<Client*> owners;
  polled.clear();
  owners.clear();
  for (const auto& group : groups_) {
    for (const auto& client : group->clients) {
      Connection& connection = client->connection();
      then = std::min(then, client->next_expiry());
      connection.flush();
      if (connection.lost()) continue;
      const short events = connection.wants_to_write() ? POLLIN | POLLOUT : POLLIN;
      polled.push_back({connection.fd(), events, 0});
      owners.push_back(client.get());
    }
  }
  const int64_t left = std::clamp<int64_t>(then - now_ns(), 0, to_ns(1));
  const timespec timeout{left / 1'000'000'000, left % 1'000'000'000};
  if (ppoll(polled.data(), polled.size(), &timeout, nullptr) <= 0) return;
  for (size_t i = 0; i < polled.size(); ++i) {
    if (polled[i].revents & ~POLLOUT) owners[i]->connection().receive();
  }
}

void Load::write_json(std::ostream& out) const {
  size_t lost = 0;
  for (const auto& client : groups_.front()->clients) lost += client->connection().refuses();
  out << "{\"load\": ";
  groups_.front()->recorder.write_json(out);
  out << ", \"connections_lost\": " << lost << ", \"client_cpu_s\": " << cpu_s_ << ", \"probe\": ";
  if (groups_.size() > 1) {
    groups_.back()->recorder.write_json(out);
  } else {
    out << "null";
  }
  out << "}\n";
}

}  // namespace grpcload
