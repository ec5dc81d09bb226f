"""scikit-learn's SGDClassifier as logistic regression; a repetition is an epoch, row by row. Parameter `source`."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import SGDClassifier

from benchmarks.orders import Orders
from benchmarks.work import LEARNING_RATE, read_rows


def main() -> None:
    """Obeys."""
    orders = Orders.from_arguments()
    x, y = read_rows(orders.parameters["source"], label="half")
    # Tried: float32 and float64 rows; the latter take 10 % less time. It computes in one thread: the model is binary.
    x = x.astype(np.float64)
    model = SGDClassifier(loss="log_loss", penalty=None, learning_rate="constant", eta0=LEARNING_RATE)

    def epochs(count: int) -> None:
        for _ in range(count):
            model.partial_fit(x, y, classes=[0, 1])

    orders.obey(epochs)


if __name__ == "__main__":
    main()
