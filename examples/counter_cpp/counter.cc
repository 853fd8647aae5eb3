// SPDX-License-Identifier: GPL-2.0-or-later
//
// A back end in C++, from proto/splitvisor/trap/v1/trap.proto alone: a counter of each VM.
//
//   H_TALLY(amount)                 0xF130   adds; r4 = the sum
//   H_TALLY_WORDS(address, count)   0xF134   adds that many big-endian 32-bit words of guest memory; r4 = the sum
//   RTAS "example,tally"                     (status, the sum's low word)

#include <csignal>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include "splitvisor/trap/v1/trap.grpc.pb.h"

namespace pb = splitvisor::trap::v1;
using Stream = grpc::ServerReaderWriter<pb::AttachResponse, pb::AttachRequest>;

namespace {

constexpr char kName[] = "counter_cpp";
constexpr uint32_t kTally = 0xF130, kTallyWords = 0xF134;
enum RouteIndex { kRouteTally, kRouteTallyWords, kRouteRtas };
constexpr int64_t kSuccess = 0, kParameter = -4;
constexpr uint64_t kMaxWords = 1 << 18;  // memory_read: at most 1 MiB a message.
constexpr size_t kMaxVms = 256;
constexpr uint32_t kMaxVcpus = 8;

// One VM over all its connections.
struct Vm {
  explicit Vm(uint64_t incarnation) : incarnation(incarnation) {}

  const uint64_t incarnation;
  std::mutex working;               // Held by the connection that serves the VM.
  grpc::ServerContext* connection = nullptr;  // Guarded by Tally::mutex_.
  uint64_t sum = 0;
  std::map<uint32_t, pb::Reply> last_replies;  // By vCPU: what a repeated trap gets.
  uint32_t last_request = 0;
};

pb::Route MakeRoute(pb::CallKind kind, uint32_t token, const char* name, uint32_t arguments) {
  pb::Route route;
  route.set_kind(kind);
  route.set_token(token);
  route.set_name(name);
  route.set_arguments(arguments);
  return route;
}

// Calls that the offer lists in the order of RouteIndex.
pb::AttachResponse MakeOffer() {
  pb::AttachResponse response;
  pb::Offer* offer = response.mutable_offer();
  offer->set_backend(kName);
  *offer->add_routes() = MakeRoute(pb::CALL_KIND_HYPERCALL, kTally, "H_TALLY", 1);
  *offer->add_routes() = MakeRoute(pb::CALL_KIND_HYPERCALL, kTallyWords, "H_TALLY_WORDS", 2);
  *offer->add_routes() = MakeRoute(pb::CALL_KIND_RTAS, 0, "example,tally", 0);
  return response;
}

class Tally final : public pb::TrapService::Service {
 public:
  grpc::Status Attach(grpc::ServerContext* context, Stream* stream) override {
    pb::AttachRequest request;
    if (!stream->Read(&request)) return grpc::Status::OK;
    if (!request.has_hello() || request.hello().vm().empty() || request.hello().vcpus() > kMaxVcpus)
      return Broken("the first message of a trap stream is hello, with a name and at most 8 vCPUs");
    std::shared_ptr<Vm> vm;
    grpc::Status found = Find(request.hello(), context, &vm);
    if (!found.ok()) return found;
    const std::string name = request.hello().vm();

    std::lock_guard<std::mutex> working(vm->working);
    grpc::Status status = grpc::Status::OK;
    bool going_on = stream->Write(MakeOffer());
    while (going_on && stream->Read(&request)) {
      switch (request.message_case()) {
        case pb::AttachRequest::kTrap:
          going_on = Answer(*vm, request.trap(), *stream, &status);
          break;
        case pb::AttachRequest::kReset: {
          vm->sum = 0;
          pb::AttachResponse response;
          response.mutable_reset_done()->set_count(request.reset().count());
          going_on = stream->Write(response);
          break;
        }
        case pb::AttachRequest::kDetach:
          Forget(name, vm);
          return grpc::Status::OK;
        default:
          status = Broken("unexpected message on a trap stream");
          going_on = false;
      }
    }
    Disconnect(*vm, context);
    return status;
  }

 private:
  static grpc::Status Broken(const char* why) { return {grpc::StatusCode::INVALID_ARGUMENT, why}; }

  // The VM of a connection: a known one, or a new one for a new life of cpu_service. An older connection of it is ended.
  grpc::Status Find(const pb::Hello& hello, grpc::ServerContext* context, std::shared_ptr<Vm>* found) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::shared_ptr<Vm>& vm = vms_[hello.vm()];
    if (vm && vm->incarnation > hello.incarnation())
      return {grpc::StatusCode::ALREADY_EXISTS, "a newer cpu_service is attached for VM " + hello.vm()};
    if (!vm && vms_.size() > kMaxVms) {
      vms_.erase(hello.vm());
      return {grpc::StatusCode::RESOURCE_EXHAUSTED, "too many VMs"};
    }
    if (vm && vm->connection) vm->connection->TryCancel();
    if (!vm || vm->incarnation < hello.incarnation()) vm = std::make_shared<Vm>(hello.incarnation());
    vm->connection = context;
    *found = vm;
    return grpc::Status::OK;
  }

  void Disconnect(Vm& vm, grpc::ServerContext* context) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (vm.connection == context) vm.connection = nullptr;
  }

  void Forget(const std::string& name, const std::shared_ptr<Vm>& vm) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto known = vms_.find(name);
    if (known != vms_.end() && known->second == vm) vms_.erase(known);
  }

  // Handles a trap; a repeated one gets the reply that it had. False when the connection has ended.
  static bool Answer(Vm& vm, const pb::Trap& trap, Stream& stream, grpc::Status* status) {
    pb::Reply& last = vm.last_replies[trap.vcpu() % kMaxVcpus];
    pb::AttachResponse response;
    if (trap.sequence() != last.sequence()) {
      pb::Reply reply;
      reply.set_vcpu(trap.vcpu());
      reply.set_sequence(trap.sequence());
      const auto& arguments = trap.arguments();
      if (trap.route() == kRouteTally && arguments.size() == 1) {
        vm.sum += arguments[0];
        reply.add_outputs(vm.sum);
      } else if (trap.route() == kRouteTallyWords && arguments.size() == 2) {
        uint64_t sum = 0;
        bool in_ram = false;
        if (!SumWords(vm, arguments[0], arguments[1], stream, &sum, &in_ram)) return false;
        reply.set_result(in_ram ? kSuccess : kParameter);
        if (in_ram) reply.add_outputs(vm.sum += sum);
      } else if (trap.route() == kRouteRtas) {
        reply.add_returns(0);
        reply.add_returns(static_cast<uint32_t>(vm.sum));
      } else {
        *status = Broken("a trap does not fit the offer");
        return false;
      }
      last = reply;  // From here on the call has happened, whatever becomes of the connection.
    }
    *response.mutable_reply() = last;
    return stream.Write(response);
  }

  // Asks cpu_service for guest memory; it answers before it sends anything else. False when the connection has ended.
  static bool SumWords(Vm& vm, uint64_t address, uint64_t count, Stream& stream, uint64_t* sum, bool* in_ram) {
    if (count > kMaxWords) return true;
    pb::AttachResponse asked;
    asked.mutable_memory_read()->set_id(++vm.last_request);
    asked.mutable_memory_read()->mutable_range()->set_address(address);
    asked.mutable_memory_read()->mutable_range()->set_length(4 * count);
    if (!stream.Write(asked)) return false;
    pb::AttachRequest answer;
    do {
      if (!stream.Read(&answer)) return false;
    } while (!answer.has_memory_result() || answer.memory_result().id() != vm.last_request);
    const std::string& data = answer.memory_result().data();
    *in_ram = answer.memory_result().ok() && data.size() == 4 * count;
    for (size_t at = 0; *in_ram && at < data.size(); at += 4) {
      uint32_t word;
      std::memcpy(&word, data.data() + at, sizeof word);
      *sum += __builtin_bswap32(word);  // The guest's words are big-endian, this host's are not.
    }
    return true;
  }

  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Vm>> vms_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || std::strcmp(argv[1], "--listen") != 0) {
    std::cerr << "usage: counter --listen unix:/path | 127.0.0.1:port\n";
    return 2;
  }
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // Before gRPC makes threads, so that sigwait() below gets them.

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  Tally tally;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(argv[2], grpc::InsecureServerCredentials());
  // cpu_service pings every second; gRPC would take that for an attack.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 900);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder.RegisterService(&tally);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) {
    std::cerr << "counter: cannot listen at " << argv[2] << "; is another service running at it?\n";
    return 4;
  }
  server->GetHealthCheckService()->SetServingStatus("splitvisor.trap.v1.TrapService", true);
  int number;
  sigwait(&ends, &number);
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  return 0;
}
