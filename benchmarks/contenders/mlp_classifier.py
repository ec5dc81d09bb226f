"""scikit-learn's MLPClassifier; a repetition is an epoch. Parameters `source` and `batch`."""

from __future__ import annotations

from sklearn.neural_network import MLPClassifier

from benchmarks.orders import Orders
from benchmarks.work import CLASSES, HIDDEN, LEARNING_RATE, MOMENTUM, read_rows


def main() -> None:
    """Obeys."""
    orders = Orders.from_arguments()
    # Tried: float32 and float64 rows (twice the time); Nesterov's momentum, its default, is not what the others compute.
    x, y = read_rows(orders.parameters["source"])
    model = MLPClassifier(
        hidden_layer_sizes=HIDDEN,
        solver="sgd",
        batch_size=orders.parameters["batch"],
        momentum=MOMENTUM,
        nesterovs_momentum=False,
        alpha=0.0,
        learning_rate_init=LEARNING_RATE,
    )

    def epochs(count: int) -> None:
        for _ in range(count):
            model.partial_fit(x, y, classes=range(CLASSES))

    orders.obey(epochs)


if __name__ == "__main__":
    main()
