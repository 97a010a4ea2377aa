"""A reward service in Python, from reward.proto alone: `python reward_service.py [PORT]`.

Needs grpcio and the two modules that grpcio-tools makes of the contract (see docs/reward-service-in-python.md).
It rewards short answers that call a tool.
"""

import hashlib
import json
import sys
from concurrent import futures

import grpc

from octet.v1 import reward_pb2, reward_pb2_grpc


def score(example, completion):
    """A number from 0 to 1 that depends on nothing but the example and the completion."""
    wanted = example["reward_model"]["ground_truth"]
    if not (isinstance(wanted, dict) and "tool_call" in wanted):
        return (0.0 if "<tool_call>" in completion else 1.0), "no-call-wanted"
    if wanted["tool_call"]["name"] not in completion:
        return 0.0, "no-call"
    return 1.0 / (1.0 + len(completion) / 1000.0), "call"


class RewardService(reward_pb2_grpc.RewardServiceServicer):
    def Describe(self, request, context):
        with open(__file__, "rb") as source:
            digest = hashlib.sha256(source.read()).hexdigest()
        return reward_pb2.DescribeResponse(
            name="short-calls",
            contract_version=1,
            # Changes with the code: whoever was told this digest gets these rewards.
            digest=digest,
            min_reward=0.0,
            max_reward=1.0,
            max_in_flight=64,
        )

    def Score(self, requests, context):
        for request in requests:
            response = reward_pb2.ScoreResponse(id=request.id)
            try:
                reward, verdict = score(json.loads(request.example_json), request.completion)
                response.scored.reward = reward
                response.scored.verdict = verdict
            except (KeyError, TypeError, ValueError) as error:
                # Each request is answered once, with a reward or with a failure that has a name.
                response.failure.kind = "bad-example"
                response.failure.message = repr(error)
                response.failure.retryable = False
            yield response


def main():
    port = sys.argv[1] if len(sys.argv) > 1 else "50051"
    # octet pings its peers every few seconds to notice at once that one is gone. Without these, gRPC takes
    # that for abuse and closes the connection.
    options = [
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    # A stream holds a thread for as long as it is open: one for each rollout worker, and some more.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=options)
    reward_pb2_grpc.add_RewardServiceServicer_to_server(RewardService(), server)
    bound = server.add_insecure_port("127.0.0.1:" + port)
    server.start()
    print("listening on http://127.0.0.1:%d" % bound, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
