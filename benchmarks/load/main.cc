// grpcload: loads a gRPC server, and reports the outcome of each request. See options.cc for the usage.
#include <exception>
#include <fstream>
#include <iostream>

#include "load.h"

int main(int argc, char** argv) {
  grpcload::Options options;
  try {
    options = grpcload::parse_options(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "grpcload: " << error.what() << "\n\n" << grpcload::kUsage;
    return 2;
  }
  try {
    grpcload::Load load(options);
    load.run();
    load.write_json(std::cout);
    if (!options.log.empty()) {
      std::ofstream log(options.log);
      load.write_log(log);
    }
  } catch (const std::exception& error) {
    std::cerr << "grpcload: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
