// SPDX-License-Identifier: GPL-2.0-or-later
//
// A back end's side of proto/splitvisor/trap/v1/trap.proto in C++: one Session per VM over all its connections, calls that take
// effect once, guest memory through the stream. A device is a class derived from Session; RunService() makes it a service.

#pragma once

#include <algorithm>
#include <csignal>
#include <cstring>
#include <deque>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include "splitvisor/trap/v1/trap.grpc.pb.h"

namespace trap {

namespace pb = splitvisor::trap::v1;
using Stream = grpc::ServerReaderWriter<pb::AttachResponse, pb::AttachRequest>;

constexpr int64_t kSuccess = 0, kClosed = 2, kParameter = -4;  // What a hypercall leaves in r3 (PAPR 14.1.3).
constexpr uint64_t kMaxReadBytes = 1 << 20;                    // memory_read and memory_write: at most 1 MiB a message.
constexpr size_t kMaxVms = 256;
constexpr uint32_t kMaxVcpus = 8;

// A VM as a session sees it. It outlives connections.
class Vm {
 public:
  explicit Vm(const pb::Hello& hello) : hello(hello) {}

  const pb::Hello hello;

  // Pulses an interrupt source, from any thread; without a connection, as soon as there is one.
  void Interrupt(uint32_t source) {
    std::lock_guard<std::mutex> lock(writing_);
    pb::AttachResponse response;
    response.mutable_interrupt()->set_source(source);
    if (!stream_ || !stream_->Write(response)) missed_.insert(source);
  }

  // Reads guest memory, inside a call. False: the connection has ended. `data` stays empty when the range is not in RAM. With the
  // LIOBN of one of this back end's devices, the address is one of that device's DMA window, and its TCEs must allow reading.
  bool Read(uint64_t address, uint64_t length, std::string* data, uint32_t liobn = 0) {
    if (length > kMaxReadBytes) return true;
    pb::AttachResponse asked;
    asked.mutable_memory_read()->set_id(++last_request_);
    asked.mutable_memory_read()->mutable_range()->set_address(address);
    asked.mutable_memory_read()->mutable_range()->set_length(length);
    asked.mutable_memory_read()->set_liobn(liobn);
    pb::MemoryResult result;
    if (!Ask(asked, &result)) return false;
    if (result.ok() && result.data().size() == length) *data = result.data();
    return true;
  }

  // Writes guest memory, inside a call: all of it, or nothing, and then `written` is false. Otherwise as Read().
  bool Write(uint64_t address, const std::string& data, bool* written, uint32_t liobn = 0) {
    *written = false;
    if (data.size() > kMaxReadBytes) return true;
    pb::AttachResponse asked;
    asked.mutable_memory_write()->set_id(++last_request_);
    asked.mutable_memory_write()->mutable_block()->set_address(address);
    asked.mutable_memory_write()->mutable_block()->set_data(data);
    asked.mutable_memory_write()->set_liobn(liobn);
    pb::MemoryResult result;
    if (!Ask(asked, &result)) return false;
    *written = result.ok();
    return true;
  }

  // Puts entries of 16 bytes into a device's command/response queue. `position`: how many came before these since H_REG_CRQ. False:
  // the connection has ended; Session::Attaching() of the next one knows which came.
  bool PutEntries(uint32_t unit, uint64_t position, const std::string& entries) {
    pb::AttachResponse put;
    put.mutable_crq_entries()->set_unit_address(unit);
    put.mutable_crq_entries()->set_position(position);
    put.mutable_crq_entries()->set_entries(entries);
    return Write(put);
  }

 private:
  friend class TrapService;

  bool Write(const pb::AttachResponse& response) {
    std::lock_guard<std::mutex> lock(writing_);
    return stream_->Write(response);
  }

  // Asks cpu_service, and waits for its answer. Whatever it says before that, such as calls that are posted, is kept for Next().
  bool Ask(const pb::AttachResponse& asked, pb::MemoryResult* result) {
    if (!Write(asked)) return false;
    pb::AttachRequest answer;
    while (stream_->Read(&answer)) {
      if (answer.has_memory_result() && answer.memory_result().id() == last_request_) {
        result->Swap(answer.mutable_memory_result());
        return true;
      }
      waiting_.push_back(std::move(answer));
    }
    return false;
  }

  // The next message of this connection. False: it has ended.
  bool Next(pb::AttachRequest* request) {
    if (waiting_.empty()) return stream_->Read(request);
    request->Swap(&waiting_.front());
    waiting_.pop_front();
    return true;
  }

  // Has a new connection carry what is sent from now on, and what the last one missed; null: there is none.
  void Connect(Stream* stream) {
    std::set<uint32_t> missed;
    waiting_.clear();  // What was not handled is said again.
    {
      std::lock_guard<std::mutex> lock(writing_);
      stream_ = stream;
      if (stream) missed.swap(missed_);
    }
    for (uint32_t source : missed) Interrupt(source);
  }

  std::mutex writing_;  // Of stream_, whose writes must not overlap, and of missed_.
  Stream* stream_ = nullptr;
  std::set<uint32_t> missed_;
  uint32_t last_request_ = 0;
  std::deque<pb::AttachRequest> waiting_;  // As long as credit and the number of vCPUs let it become.
};

// A device of one VM. Its calls never overlap.
class Session {
 public:
  virtual ~Session() = default;

  // The routes that it owns, and its nodes.
  virtual pb::Offer Offer() const = 0;

  // Handles a call of one of its routes; the reply has its numbers already. Returns false when the connection has ended meanwhile:
  // then the call is made again.
  virtual bool Handle(const pb::Trap& trap, pb::Reply* reply) = 0;

  // A connection comes, for the first time or again, and Offer() is next: hello says which queues cpu_service has registered.
  virtual void Attaching(const pb::Hello&) {}

  // A connection is there, for the first time or again: what was pulsed on the one before may be lost.
  virtual void Attached() {}

  // The machine was reset.
  virtual void Reset() {}
};

// Makes the session of a VM; null refuses it, and `why` says why.
using Factory = std::function<std::unique_ptr<Session>(Vm& vm, std::string* why)>;

inline pb::Route* AddRoute(pb::Offer* offer, pb::CallKind kind, uint32_t token, const char* name, uint32_t arguments) {
  pb::Route* route = offer->add_routes();
  route->set_kind(kind);
  route->set_token(token);
  route->set_name(name);
  route->set_arguments(arguments);
  return route;
}

class TrapService final : public pb::TrapService::Service {
 public:
  TrapService(const char* name, Factory factory) : name_(name), factory_(std::move(factory)) {}

  grpc::Status Attach(grpc::ServerContext* context, Stream* stream) override {
    pb::AttachRequest request;
    if (!stream->Read(&request)) return grpc::Status::OK;
    if (!request.has_hello() || request.hello().vm().empty() || request.hello().vcpus() > kMaxVcpus)
      return Broken("the first message of a trap stream is hello, with a name and at most 8 vCPUs");
    if (request.hello().features_size() > 0)  // None is known here: a saved state, for one, could not be taken.
      return {grpc::StatusCode::FAILED_PRECONDITION, "cpu_service relies on feature " + std::to_string(request.hello().features(0)) +
                                                         ", which " + name_ + " does not know"};
    if (request.hello().beginning() != pb::BEGINNING_RUNNING) return Broken("hello does not say what the devices begin with");
    std::shared_ptr<Link> link;
    grpc::Status status = Find(request.hello(), context, &link);
    if (!status.ok()) return status;

    std::lock_guard<std::mutex> working(link->working);
    for (const pb::VcpuPosition& position : request.hello().positions()) {
      uint64_t& known = link->vcpus[position.vcpu() % kMaxVcpus].position;
      known = std::max(known, position.sequence());
    }
    pb::AttachResponse response;
    link->session->Attaching(request.hello());
    link->offer = link->session->Offer();
    link->offer.set_backend(name_);
    const auto& routes = link->offer.routes();
    if (std::any_of(routes.begin(), routes.end(), [](const pb::Route& route) { return route.has_selector(); }))
      link->offer.add_features(pb::FEATURE_SHARED_CALLS);
    if (link->offer.transports_size() > 0) link->offer.add_features(pb::FEATURE_TRANSPORTS);
    if (std::any_of(routes.begin(), routes.end(), [](const pb::Route& route) { return route.posted().call_bytes() > 0; }))
      link->offer.add_features(pb::FEATURE_POSTED_DOORBELLS);
    *response.mutable_offer() = link->offer;
    bool going_on = stream->Write(response);
    link->vm.Connect(stream);
    link->session->Attached();
    while (going_on && link->vm.Next(&request)) {
      switch (request.message_case()) {
        case pb::AttachRequest::kTrap:
          going_on = Answer(*link, request.trap(), &status);
          break;
        case pb::AttachRequest::kPosted:
          going_on = TakePosted(*link, request.posted(), &status);
          break;
        case pb::AttachRequest::kReset: {
          link->session->Reset();
          response.mutable_reset_done()->set_count(request.reset().count());
          going_on = link->vm.Write(response);
          break;
        }
        case pb::AttachRequest::kDetach:
          link->vm.Connect(nullptr);
          Forget(link);
          return grpc::Status::OK;
        default:
          status = Broken("unexpected message on a trap stream");
          going_on = false;
      }
    }
    link->vm.Connect(nullptr);
    Disconnect(*link, context);
    return status;
  }

 private:
  struct Vcpu {
    uint64_t position = 0;  // Sequence of the last call that took effect.
    pb::Reply last_reply;   // What a repeated trap gets.
  };

  // One VM over all its connections.
  struct Link {
    explicit Link(const pb::Hello& hello) : vm(hello) {}

    Vm vm;
    std::unique_ptr<Session> session;
    pb::Offer offer;
    std::mutex working;                         // Held by the connection that serves the VM.
    grpc::ServerContext* connection = nullptr;  // Guarded by TrapService::mutex_.
    std::map<uint32_t, Vcpu> vcpus;
  };

  static grpc::Status Broken(const std::string& why) { return {grpc::StatusCode::INVALID_ARGUMENT, why}; }

  // The link of a connection: a known one, or a new one for a new life of cpu_service. An older connection of it is ended.
  grpc::Status Find(const pb::Hello& hello, grpc::ServerContext* context, std::shared_ptr<Link>* found) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto known = links_.find(hello.vm());
    std::shared_ptr<Link> link = known == links_.end() ? nullptr : known->second;
    const uint64_t incarnation = link ? link->vm.hello.incarnation() : 0;
    if (link && incarnation > hello.incarnation())
      return {grpc::StatusCode::ALREADY_EXISTS, "a newer cpu_service is attached for VM " + hello.vm()};
    if (!link && links_.size() >= kMaxVms) return {grpc::StatusCode::RESOURCE_EXHAUSTED, "too many VMs"};
    if (link && link->connection) link->connection->TryCancel();
    if (!link || incarnation < hello.incarnation()) {
      std::string why = "this VM is refused";
      links_.erase(hello.vm());
      link = std::make_shared<Link>(hello);
      link->session = factory_(link->vm, &why);
      if (!link->session) return Broken(why);
      links_[hello.vm()] = link;
    }
    link->connection = context;
    *found = link;
    return grpc::Status::OK;
  }

  void Disconnect(Link& link, grpc::ServerContext* context) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (link.connection == context) link.connection = nullptr;
  }

  void Forget(const std::shared_ptr<Link>& link) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto known = links_.find(link->vm.hello.vm());
    if (known != links_.end() && known->second == link) links_.erase(known);
  }

  // Whether a call is new; one with a gap before it ends the connection, for what is missing would never take effect.
  static bool IsNew(const Vcpu& vcpu, const pb::Trap& trap, grpc::Status* status) {
    if (trap.sequence() > vcpu.position + 1 + trap.skipped()) *status = Broken("a call before this one did not come");
    return status->ok() && trap.sequence() > vcpu.position;
  }

  // Handles a trap; a repeated one gets the reply that it had. False when the connection has ended, or is to.
  static bool Answer(Link& link, const pb::Trap& trap, grpc::Status* status) {
    Vcpu& vcpu = link.vcpus[trap.vcpu() % kMaxVcpus];
    if (IsNew(vcpu, trap, status)) {
      pb::Reply reply;
      reply.set_vcpu(trap.vcpu());
      reply.set_sequence(trap.sequence());
      if (!Fits(link, trap, status) || !link.session->Handle(trap, &reply)) return false;
      vcpu.position = trap.sequence();  // From here on the call has happened, whatever becomes of the connection.
      vcpu.last_reply = reply;
    }
    if (trap.sequence() != vcpu.last_reply.sequence()) return status->ok();
    pb::AttachResponse response;
    *response.mutable_reply() = vcpu.last_reply;
    return link.vm.Write(response);
  }

  // Handles posted calls, those among them that are new, and gives their credit back.
  static bool TakePosted(Link& link, const pb::PostedBatch& batch, grpc::Status* status) {
    std::map<uint32_t, uint64_t> done;
    for (const pb::Trap& trap : batch.traps()) {
      Vcpu& vcpu = link.vcpus[trap.vcpu() % kMaxVcpus];
      if (IsNew(vcpu, trap, status)) {
        pb::Reply unseen;
        if (!Fits(link, trap, status) || !link.session->Handle(trap, &unseen)) return false;
        vcpu.position = trap.sequence();
      }
      if (!status->ok()) return false;
      done[trap.vcpu()] = trap.sequence();
    }
    for (const auto& [vcpu, sequence] : done) {
      pb::AttachResponse response;
      response.mutable_acknowledge()->set_vcpu(vcpu);
      response.mutable_acknowledge()->set_sequence(sequence);
      if (!link.vm.Write(response)) return false;
    }
    return true;
  }

  static bool Fits(const Link& link, const pb::Trap& trap, grpc::Status* status) {
    if (trap.route() < static_cast<uint32_t>(link.offer.routes_size())) {
      const pb::Route& route = link.offer.routes(trap.route());
      if (route.kind() == pb::CALL_KIND_RTAS || route.arguments() == static_cast<uint32_t>(trap.arguments_size())) return true;
    }
    *status = Broken("a trap does not fit the offer");
    return false;
  }

  const char* const name_;
  const Factory factory_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Link>> links_;
};

// Serves sessions at an address until SIGTERM or SIGINT. Returns the exit status: 0, or 4 when it cannot listen.
inline int RunService(const char* name, const char* address, Factory factory) {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // Before gRPC makes threads, so that sigwait() below gets them.
  std::signal(SIGPIPE, SIG_IGN);

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  TrapService service(name, std::move(factory));
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  // cpu_service pings every second; gRPC would take that for an attack.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 900);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) {
    std::cerr << name << ": cannot listen at " << address << "; is another service running at it?\n";
    return 4;
  }
  server->GetHealthCheckService()->SetServingStatus("splitvisor.trap.v1.TrapService", true);
  int number;
  sigwait(&ends, &number);
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  return 0;
}

}  // namespace trap
