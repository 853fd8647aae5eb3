// SPDX-License-Identifier: GPL-2.0-or-later
//
// A device with a command/response queue (LoPAPR 17.2.3.1) in C++: examples/crq_device/crq_device.py once more, without the SDK.
//
// The guest sends an entry of 16 bytes: 0x80, format 1, a tag (16 bits), a number of bytes (32 bits), their address in the device's
// DMA window (64 bits). The device turns the bytes round, and answers with the entry and the number that it has turned round.
//
// cpu_service has the queue, the window and the signal of the device, which the offer declares as a transport: of H_REG_CRQ,
// H_FREE_CRQ and H_SEND_CRQ only what concerns the device arrives here, and the calls for TCEs and H_VIO_SIGNAL never do.

#include <deque>

#include "trap_service.h"

namespace pb = trap::pb;

namespace {

constexpr uint32_t kRegCrq = 0xFC, kFreeCrq = 0x100, kSendCrq = 0x108;
enum RouteIndex { kRouteRegister, kRouteFree, kRouteSend, kRouteQuiesce };  // As the offer lists them.
constexpr uint32_t kFirstUnit = 0x71000000;      // The unit address of slot 0.
constexpr uint32_t kVioInterrupts = 0x1100;      // A device in a slot has this source plus the low byte of its address.
constexpr uint64_t kWindowBytes = 256ull << 20;  // The largest DMA window that there is.
constexpr uint32_t kCreditEntries = 4096;        // Under way while the guest goes on; one more waits.
constexpr size_t kKeptEntries = 4096;            // To the guest, which can be said again after a lost connection.
constexpr size_t kEntriesPerMessage = 256;
constexpr size_t kEntryBytes = 16;
constexpr uint64_t kMaxBytes = 1 << 20;  // Of a command.
constexpr uint8_t kInitialization = 0xC0, kInitialize = 1, kInitialized = 2, kCommand = 0x80, kFormat = 1;

// The guest's numbers are big-endian.
std::string Bytes(uint64_t value, size_t size) {
  std::string bytes(size, '\0');
  for (size_t at = size; at-- > 0; value >>= 8) bytes[at] = static_cast<char>(value);
  return bytes;
}

class Turner final : public trap::Session {
 public:
  Turner(trap::Vm& vm, uint32_t unit) : vm_(vm), unit_(unit), source_(kVioInterrupts | (unit & 0xFF)) {}

  pb::Offer Offer() const override {
    pb::Offer offer;
    pb::Route* registers = trap::AddRoute(&offer, pb::CALL_KIND_HYPERCALL, kRegCrq, "H_REG_CRQ", 3);
    pb::Route* frees = trap::AddRoute(&offer, pb::CALL_KIND_HYPERCALL, kFreeCrq, "H_FREE_CRQ", 1);
    pb::Route* sends = trap::AddRoute(&offer, pb::CALL_KIND_HYPERCALL, kSendCrq, "H_SEND_CRQ", 3);
    for (pb::Route* route : {registers, frees, sends}) {
      route->mutable_selector()->set_argument(0);
      route->mutable_selector()->set_no_owner_result(trap::kParameter);
      pb::KeyRange* key = route->add_keys();
      key->set_first(unit_);
      key->set_last(unit_);
    }
    sends->set_unavailable_result(trap::kClosed);
    pb::PostedPolicy* posted = sends->mutable_posted();  // The guest does not wait for what its entry does.
    posted->set_credit_bytes(kCreditEntries);
    posted->set_call_bytes(1);
    posted->set_key_argument(0);
    posted->add_key_values(unit_);
    posted->set_at_once(true);
    posted->set_without_credit(pb::WITHOUT_CREDIT_WAIT);
    // What a firmware calls before its client takes over, when devices must leave memory alone: every owner of it is asked.
    pb::Route* quiesce = trap::AddRoute(&offer, pb::CALL_KIND_RTAS, 0, "quiesce", 0);
    quiesce->mutable_selector()->set_everybody(true);

    pb::Transport* transport = offer.add_transports();
    transport->set_unit_address(unit_);
    transport->set_interrupt_source(source_);
    transport->set_signal_mask(1);
    transport->set_window_bytes(kWindowBytes);
    transport->set_has_queue(true);
    transport->set_queue_open(open_);

    char path[32];
    std::snprintf(path, sizeof path, "/vdevice/turner@%x", unit_);
    pb::TreeNode* node = offer.add_nodes();  // Its parent is vio_service's.
    node->set_path(path);
    const auto add = [node](const char* name, const std::string& value) {
      pb::TreeProperty* property = node->add_properties();
      property->set_name(name);
      property->set_value(value);
    };
    add("reg", Bytes(unit_, 4));
    add("device_type", std::string("turner", 7));
    add("compatible", std::string("example,turner", 15));
    add("interrupts", Bytes(source_, 4) + Bytes(0, 4));
    add("ibm,my-dma-window", Bytes(unit_, 4) + Bytes(0, 8) + Bytes(kWindowBytes, 8));
    add("ibm,#dma-address-cells", Bytes(2, 4));
    add("ibm,#dma-size-cells", Bytes(2, 4));
    return offer;
  }

  // A queue that is not listed was freed while there was no connection. Entries that got lost on the way are said again.
  void Attaching(const pb::Hello& hello) override {
    const auto& queues = hello.open_queues();
    const auto queue = std::find_if(queues.begin(), queues.end(), [this](const auto& each) { return each.unit_address() == unit_; });
    if (queue == queues.end()) open_ = false;
    else arrived_ = queue->entries();
  }

  void Attached() override {
    if (!open_ || arrived_ >= sent_ || sent_ - arrived_ > kept_.size()) return;
    for (uint64_t at = arrived_; at < sent_; at += kEntriesPerMessage) {
      const auto first = kept_.end() - static_cast<ptrdiff_t>(sent_ - at);
      std::string entries;
      for (auto each = first; each != kept_.end() && entries.size() < kEntriesPerMessage * kEntryBytes; ++each) entries += *each;
      if (!vm_.PutEntries(unit_, at, entries)) return;
    }
  }

  bool Handle(const pb::Trap& trap, pb::Reply* reply) override {
    switch (trap.route()) {
      case kRouteRegister:
        kept_.clear();
        sent_ = 0;
        open_ = true;
        return true;
      case kRouteSend:
        if (open_) return Receive(trap.arguments(1), trap.arguments(2));
        reply->set_result(trap::kClosed);
        return true;
      case kRouteQuiesce:
        reply->add_returns(0);
        [[fallthrough]];
      default:
        open_ = false;
        return true;
    }
  }

  void Reset() override { open_ = false; }

 private:
  // Takes an entry. False: the connection has ended, and the call is made again.
  bool Receive(uint64_t high, uint64_t low) {
    const uint8_t kind = high >> 56, format = high >> 48;
    if (kind == kInitialization && format == kInitialize)
      Send(Bytes(uint64_t{kInitialization} << 56 | uint64_t{kInitialized} << 48, 8) + Bytes(0, 8));
    if (kind != kCommand || format != kFormat) return true;
    uint32_t length = high;
    std::string data;
    bool written = false;
    if (length <= kMaxBytes && !vm_.Read(low, length, &data, unit_)) return false;
    if (data.size() == length) {
      std::reverse(data.begin(), data.end());
      if (!vm_.Write(low, data, &written, unit_)) return false;
    }
    if (!written) length = 0;
    Send(Bytes(high >> 32, 4) + Bytes(length, 4) + Bytes(low, 8));
    return true;
  }

  void Send(const std::string& entry) {
    kept_.push_back(entry);
    if (kept_.size() > kKeptEntries) kept_.pop_front();
    vm_.PutEntries(unit_, sent_++, entry);
  }

  trap::Vm& vm_;
  const uint32_t unit_, source_;
  bool open_ = false;             // The guest has registered the queue.
  uint64_t sent_ = 0;             // Entries since then.
  uint64_t arrived_ = 0;          // As many of them cpu_service had when it attached.
  std::deque<std::string> kept_;  // The newest.
};

// A VM's device, at the address that its configuration asks for, else in the first of the slots that are this back end's.
std::unique_ptr<trap::Session> MakeTurner(trap::Vm& vm, std::string* why) {
  uint32_t unit = vm.hello.slots().count() ? kFirstUnit + vm.hello.slots().first() : 0;
  for (const pb::DeviceSpec& device : vm.hello.devices()) {
    if (device.kind() != "turner" || vm.hello.devices_size() > 1) {
      *why = "turner: there is one device here, a turner";
      return nullptr;
    }
    if (device.unit_address()) unit = device.unit_address();
  }
  if (unit) return std::make_unique<Turner>(vm, unit);
  *why = "turner: it has no slot of the VIO bus; give this back end vio_slots";
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || std::strcmp(argv[1], "--listen") != 0) {
    std::cerr << "usage: turner --listen unix:/path | 127.0.0.1:port\n";
    return 2;
  }
  return trap::RunService("turner_cpp", argv[2], MakeTurner);
}
