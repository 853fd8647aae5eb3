// SPDX-License-Identifier: GPL-2.0-or-later
//
// A back end in C++: a counter of each VM.
//
//   H_TALLY(amount)                 0xF130   adds; r4 = the sum
//   H_TALLY_WORDS(address, count)   0xF134   adds that many big-endian 32-bit words of guest memory; r4 = the sum
//   RTAS "example,tally"                     (status, the sum's low word)

#include "trap_service.h"

namespace pb = trap::pb;

namespace {

constexpr uint32_t kTally = 0xF130, kTallyWords = 0xF134;
enum RouteIndex { kRouteTally, kRouteTallyWords, kRouteRtas };  // As the offer lists them.

class Tally final : public trap::Session {
 public:
  explicit Tally(trap::Vm& vm) : vm_(vm) {}

  pb::Offer Offer() const override {
    pb::Offer offer;
    trap::AddRoute(&offer, pb::CALL_KIND_HYPERCALL, kTally, "H_TALLY", 1);
    trap::AddRoute(&offer, pb::CALL_KIND_HYPERCALL, kTallyWords, "H_TALLY_WORDS", 2);
    trap::AddRoute(&offer, pb::CALL_KIND_RTAS, 0, "example,tally", 0);
    return offer;
  }

  bool Handle(const pb::Trap& trap, pb::Reply* reply) override {
    switch (trap.route()) {
      case kRouteTally:
        reply->add_outputs(sum_ += trap.arguments(0));
        return true;
      case kRouteTallyWords:
        return AddWords(trap.arguments(0), trap.arguments(1), reply);
      default:
        reply->add_returns(0);
        reply->add_returns(static_cast<uint32_t>(sum_));
        return true;
    }
  }

  void Reset() override { sum_ = 0; }

 private:
  bool AddWords(uint64_t address, uint64_t count, pb::Reply* reply) {
    std::string data;
    if (count > trap::kMaxReadBytes / 4) {
      reply->set_result(trap::kParameter);
      return true;
    }
    if (!vm_.Read(address, 4 * count, &data)) return false;
    if (data.size() != 4 * count) {
      reply->set_result(trap::kParameter);
      return true;
    }
    for (size_t at = 0; at < data.size(); at += 4) {
      uint32_t word;
      std::memcpy(&word, data.data() + at, sizeof word);
      sum_ += __builtin_bswap32(word);  // The guest's words are big-endian, this host's are not.
    }
    reply->add_outputs(sum_);
    return true;
  }

  trap::Vm& vm_;
  uint64_t sum_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || std::strcmp(argv[1], "--listen") != 0) {
    std::cerr << "usage: counter --listen unix:/path | 127.0.0.1:port\n";
    return 2;
  }
  return trap::RunService("counter_cpp", argv[2], [](trap::Vm& vm, std::string*) { return std::make_unique<Tally>(vm); });
}
