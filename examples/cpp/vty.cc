// SPDX-License-Identifier: GPL-2.0-or-later
//
// A back end in C++ that shares calls with others: a virtual terminal (LoPAPR 16.2) on the VIO bus, an hvc console to Linux.
//
// Every back end with a terminal owns H_PUT_TERM_CHAR and H_GET_TERM_CHAR for its own unit addresses; r4 selects whose call it is.
// The terminal of a VM is a unix socket, DIRECTORY/VM.vty: who connects gets what was written of late, and types.

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "trap_service.h"

namespace pb = trap::pb;

namespace {

constexpr uint32_t kGetTermChar = 0x54, kPutTermChar = 0x58;
enum RouteIndex { kRouteGet, kRoutePut };  // As the offer lists them.
constexpr uint32_t kFirstUnit = 0x71000000;    // The unit address of slot 0.
constexpr uint32_t kVioInterrupts = 0x1100;    // A device in a slot has this source plus the low byte of its address.
constexpr size_t kBlockBytes = 16;             // What a call carries: two registers.
constexpr uint32_t kCreditBytes = 16 << 10;    // Output under way while the guest goes on.
constexpr size_t kKeptBytes = 64 << 10;        // Of the output, for who connects later.
constexpr size_t kInputBytes = 4 << 10;        // Typed, and not read by the guest.

// The host's side of a terminal: a socket with one client at a time, and a thread that serves it.
class Terminal {
 public:
  explicit Terminal(std::function<void()> on_input) : on_input_(std::move(on_input)) {}

  ~Terminal() {
    ended_ = true;
    eventfd_write(wake_, 1);
    if (thread_.joinable()) thread_.join();
    for (int each : {client_, listener_, wake_}) close(each);
  }

  // Begins to serve at a path. False: it cannot.
  bool Listen(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return false;
    path.copy(address.sun_path, path.size());
    unlink(path.c_str());
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(listener_, 1) != 0) return false;
    thread_ = std::thread([this] { Serve(); });
    return true;
  }

  // The guest writes. A client that does not read loses output: it must not hold the guest up.
  void Write(const std::string& text) {
    std::lock_guard<std::mutex> lock(mutex_);
    kept_ += text;
    if (kept_.size() > kKeptBytes) kept_.erase(0, kept_.size() - kKeptBytes);
    Send(text);
  }

  bool HasInput() { return Room() < kInputBytes; }

  // The guest reads a block of what was typed; empty: nothing was.
  std::string Read() {
    std::lock_guard<std::mutex> lock(mutex_);
    std::string block = input_.substr(0, kBlockBytes);
    input_.erase(0, block.size());
    if (!block.empty()) eventfd_write(wake_, 1);  // There is room again.
    return block;
  }

 private:
  void Serve() {
    while (!ended_) {
      const bool has_room = client_ < 0 || Room() > 0;
      pollfd waiting[] = {{wake_, POLLIN, 0}, {client_ < 0 ? listener_ : client_, has_room ? short{POLLIN} : short{0}, 0}};
      poll(waiting, 2, -1);
      eventfd_t count;
      if (waiting[0].revents) eventfd_read(wake_, &count);
      if (waiting[1].revents && client_ < 0) Accept();
      else if (waiting[1].revents) Type();
    }
  }

  void Accept() {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    std::lock_guard<std::mutex> lock(mutex_);
    client_ = client;
    Send(kept_);
  }

  void Type() {
    char typed[kInputBytes];
    const ssize_t size = recv(client_, typed, Room(), MSG_DONTWAIT);
    bool first;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (size <= 0) {
        close(client_);
        client_ = -1;
        return;
      }
      first = input_.empty();
      input_.append(typed, size);
    }
    if (first) on_input_();  // The guest then reads until there is nothing more.
  }

  size_t Room() {
    std::lock_guard<std::mutex> lock(mutex_);
    return kInputBytes - input_.size();
  }

  void Send(const std::string& text) {
    if (client_ >= 0) (void)!send(client_, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  const std::function<void()> on_input_;
  const int wake_ = eventfd(0, EFD_CLOEXEC);
  int listener_ = -1, client_ = -1;
  std::mutex mutex_;  // Of client_ as a number to send to, kept_ and input_.
  std::string kept_, input_;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

class Vty final : public trap::Session {
 public:
  Vty(trap::Vm& vm, uint32_t unit)
      : vm_(vm), unit_(unit), source_(kVioInterrupts | (unit & 0xFF)), terminal_([this] { vm_.Interrupt(source_); }) {}

  bool Listen(const std::string& path) { return terminal_.Listen(path); }

  pb::Offer Offer() const override {
    pb::Offer offer;
    pb::Route* get = trap::AddRoute(&offer, pb::CALL_KIND_HYPERCALL, kGetTermChar, "H_GET_TERM_CHAR", 1);
    pb::Route* put = trap::AddRoute(&offer, pb::CALL_KIND_HYPERCALL, kPutTermChar, "H_PUT_TERM_CHAR", 4);
    for (pb::Route* route : {get, put}) {
      route->mutable_selector()->set_argument(0);
      route->mutable_selector()->set_no_owner_result(trap::kParameter);
      pb::KeyRange* key = route->add_keys();
      key->set_first(unit_);
      key->set_last(unit_);
    }
    pb::PostedPolicy* posted = put->mutable_posted();  // Output does not wait.
    posted->set_credit_bytes(kCreditBytes);
    posted->set_key_argument(0);
    posted->add_key_values(unit_);
    posted->set_size_argument(1);
    posted->set_max_size(kBlockBytes);

    char path[32];
    std::snprintf(path, sizeof path, "/vdevice/vty@%x", unit_);
    pb::TreeNode* node = offer.add_nodes();  // Its parent is vio_service's.
    node->set_path(path);
    const auto add = [node](const char* name, const std::string& value) {
      pb::TreeProperty* property = node->add_properties();
      property->set_name(name);
      property->set_value(value);
    };
    add("reg", Cell(unit_));
    add("device_type", std::string("serial", 7));
    add("compatible", std::string("hvterm1", 8));
    add("interrupts", Cell(source_) + Cell(0));
    return offer;
  }

  void Attached() override {
    if (terminal_.HasInput()) vm_.Interrupt(source_);
  }

  bool Handle(const pb::Trap& trap, pb::Reply* reply) override {
    if (trap.route() == kRoutePut && trap.arguments(1) > kBlockBytes) {
      reply->set_result(trap::kParameter);
    } else if (trap.route() == kRoutePut) {
      terminal_.Write((Register(trap.arguments(2)) + Register(trap.arguments(3))).substr(0, trap.arguments(1)));
    } else {
      std::string block = terminal_.Read();
      reply->add_outputs(block.size());
      block.resize(kBlockBytes);
      reply->add_outputs(Value(block.substr(0, 8)));
      reply->add_outputs(Value(block.substr(8)));
    }
    return true;
  }

 private:
  // The first character is in the top byte of a register.
  static std::string Register(uint64_t value) {
    std::string text(8, '\0');
    for (size_t at = 0; at < 8; ++at) text[at] = static_cast<char>(value >> (56 - 8 * at));
    return text;
  }
  static uint64_t Value(const std::string& text) {
    uint64_t value = 0;
    for (unsigned char each : text) value = value << 8 | each;
    return value;
  }
  static std::string Cell(uint32_t value) { return Register(value).substr(4); }

  trap::Vm& vm_;
  const uint32_t unit_, source_;
  Terminal terminal_;
};

// A VM's terminal, at the address that its configuration asks for, else in the first of the slots that are this back end's.
std::unique_ptr<trap::Session> MakeVty(const std::string& directory, trap::Vm& vm, std::string* why) {
  uint32_t unit = vm.hello.slots().count() ? kFirstUnit + vm.hello.slots().first() : 0;
  for (const pb::DeviceSpec& device : vm.hello.devices()) {
    if (device.kind() != "vty" || vm.hello.devices_size() > 1) {
      *why = "vty: there is one device here, a vty";
      return nullptr;
    }
    if (device.unit_address()) unit = device.unit_address();
  }
  if (!unit) {
    *why = "vty: it has no slot of the VIO bus; give this back end vio_slots";
    return nullptr;
  }
  auto vty = std::make_unique<Vty>(vm, unit);
  if (!vty->Listen(directory + "/" + vm.hello.vm() + ".vty")) {
    *why = "vty: it cannot listen in " + directory;
    return nullptr;
  }
  return vty;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5 || std::strcmp(argv[1], "--terminals") != 0 || std::strcmp(argv[3], "--listen") != 0) {
    std::cerr << "usage: vty --terminals DIRECTORY --listen unix:/path | 127.0.0.1:port\n";
    return 2;
  }
  const std::string directory = argv[2];
  return trap::RunService("vty_cpp", argv[4], [directory](trap::Vm& vm, std::string* why) { return MakeVty(directory, vm, why); });
}
