"""LitServe on an export: ``serving_litserve.py MODEL PORT THREADS WORKERS BATCH TIMEOUT QUEUE``; slow or fast queue."""

import sys

import litserve
from serving_items import answer, item

import fastness_runtime


class Embeddings(litserve.LitAPI):
    """Batches of single items, as LitServe collects them."""

    def __init__(self, model: str, threads: int, **given) -> None:
        super().__init__(api_path="/v1/embeddings", **given)
        self._model, self._threads = model, threads

    def setup(self, device: str) -> None:
        self._encoder = fastness_runtime.load(self._model, threads=self._threads)

    def decode_request(self, request: dict) -> str | bytes:
        return item(self._encoder.about["modality"], request["input"])

    def batch(self, inputs: list) -> list:
        return list(inputs)

    def predict(self, inputs):
        return self._encoder.embed(inputs)

    def unbatch(self, output) -> list:
        return list(output)

    def encode_response(self, output) -> dict:
        return answer(output, "peer")


def main() -> None:
    """Serve."""
    model, port, threads, workers, size, timeout, queue = sys.argv[1:]
    api = Embeddings(model, int(threads), max_batch_size=int(size), batch_timeout=float(timeout))
    server = litserve.LitServer(
        api, accelerator="cpu", devices=1, workers_per_device=int(workers), fast_queue=queue == "fast"
    )
    server.run(host="127.0.0.1", port=int(port), log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
