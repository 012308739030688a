// Runs the launches that harness.py wrote into a file, and writes the buffers as they are afterwards into another.
//
// Every buffer is an allocation of its own, with bytes 0xff (NaN) on both sides that are looked at afterwards, or with
// AddressSanitizer's own watch over them. Ends with 1 and a line on stderr for what a driver refuses.
#include <cstdio>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_on_cpu.h"

namespace {

using cuda_on_cpu::Kernel;
using cuda_on_cpu::Launch;

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t GUARD = 0;
#else
constexpr std::size_t GUARD = 4096;
#endif
constexpr std::uint32_t NO_BUFFER = 0xffffffff;

class Buffer {
 public:
  explicit Buffer(std::size_t size)
      : size(size), memory_(static_cast<unsigned char*>(std::malloc(size + 2 * GUARD)), std::free) {
    std::memset(memory_.get(), 0xff, size + 2 * GUARD);
  }

  char* data() const { return reinterpret_cast<char*>(memory_.get() + GUARD); }

  void check() const {
    for (std::size_t i = 0; i < GUARD; ++i) {
      if (memory_.get()[i] != 0xff || memory_.get()[GUARD + size + i] != 0xff) {
        throw std::runtime_error("write outside of a buffer of " + std::to_string(size) + " bytes");
      }
    }
  }

  std::size_t size;

 private:
  std::unique_ptr<unsigned char, decltype(&std::free)> memory_;
};

class Reader {
 public:
  explicit Reader(const char* path) : file_(path, std::ios::binary) { file_.exceptions(std::ios::failbit); }

  template <typename Value>
  Value value() {
    Value read;
    file_.read(reinterpret_cast<char*>(&read), sizeof read);
    return read;
  }

  std::string text() {
    std::string read(value<std::uint32_t>(), '\0');
    file_.read(read.data(), static_cast<std::streamsize>(read.size()));
    return read;
  }

  Buffer buffer() {
    Buffer read(value<std::uint64_t>());
    file_.read(read.data(), static_cast<std::streamsize>(read.size));
    return read;
  }

 private:
  std::ifstream file_;
};

// One argument, which is an address or a struct, in memory that is aligned for either.
std::vector<std::uint64_t> argument(Reader& reader, const std::vector<Buffer>& buffers, std::size_t& size) {
  if (reader.value<std::uint32_t>() == 0) {
    const auto index = reader.value<std::uint32_t>();
    const auto offset = reader.value<std::uint64_t>();
    size = sizeof(void*);
    return {index == NO_BUFFER ? 0 : reinterpret_cast<std::uintptr_t>(buffers.at(index).data()) + offset};
  }
  const std::string bytes = reader.text();
  std::vector<std::uint64_t> words((bytes.size() + 7) / 8);
  std::memcpy(words.data(), bytes.data(), bytes.size());
  size = bytes.size();
  return words;
}

void launch(Reader& reader, const std::vector<Buffer>& buffers, unsigned seed) {
  const std::string name = reader.text();
  const Kernel* kernel = cuda_on_cpu_find(name.c_str());
  if (!kernel) throw std::runtime_error("there is no kernel " + name);
  Launch described = {};
  for (unsigned* field : {&described.grid.x, &described.grid.y, &described.grid.z, &described.block.x,
                          &described.block.y, &described.block.z, &described.shared_bytes}) {
    *field = reader.value<std::uint32_t>();
  }
  described.seed = seed;
  const auto count = reader.value<std::uint32_t>();
  if (count != kernel->parameter_count) throw std::runtime_error(name + ": wrong number of arguments");
  std::vector<std::vector<std::uint64_t>> arguments;
  std::vector<void*> addresses;
  for (std::uint32_t i = 0; i < count; ++i) {
    std::size_t size = 0;
    arguments.push_back(argument(reader, buffers, size));
    addresses.push_back(arguments.back().data());
    if (size != kernel->parameters[i].size) {
      throw std::runtime_error(name + ": wrong size of argument " + std::to_string(i));
    }
  }
  char error[200];
  if (cuda_on_cpu_launch(kernel, &described, addresses.data(), error, sizeof error)) throw std::runtime_error(error);
}

void replay(const char* cases, const char* results) {
  Reader reader(cases);
  std::ofstream out(results, std::ios::binary);
  for (auto remaining = reader.value<std::uint32_t>(); remaining > 0; --remaining) {
    const auto seed = reader.value<std::uint32_t>();
    std::vector<Buffer> buffers;
    for (auto count = reader.value<std::uint32_t>(); count > 0; --count) buffers.push_back(reader.buffer());
    for (auto count = reader.value<std::uint32_t>(); count > 0; --count) launch(reader, buffers, seed);
    for (const Buffer& buffer : buffers) {
      buffer.check();
      out.write(buffer.data(), static_cast<std::streamsize>(buffer.size));
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count != 3) throw std::runtime_error("usage: replay CASES RESULTS");
    replay(arguments[1], arguments[2]);
    return 0;
  } catch (const std::exception& exception) {
    std::fprintf(stderr, "%s\n", exception.what());
    return 1;
  }
}
