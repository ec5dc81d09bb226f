"""Gradients of the leaf program against finite differences and the backpropagation of the lecture notes (MATH.md)."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shardsgd.model.activations import ACTIVATIONS
from shardsgd.model.leaf import leaf_program, network_outputs
from shardsgd.model.losses import ROW_HITS, ROW_LOSSES, logistic, softmax_cross_entropy, squared_error
from shardsgd.model.networks import Network
from shardsgd.model.problem import Problem
from shardsgd.model.sampling import Sampling
from shardsgd.model.tree import reduce_node

ROWS, FEATURES = 9, 4
OUTPUTS = {"squared_error": 1, "logistic": 1, "softmax_cross_entropy": 3}
MODELS = [((), "tanh"), *itertools.product([(5,), (5, 3)], ACTIVATIONS)]


def model_name(model):
    hidden, activation = model
    return f"mlp-{'-'.join(map(str, hidden))}-{activation}" if hidden else "linear"


def make_problem(model, loss, precision="float64", rows=ROWS, shards=1):
    hidden, activation = model
    network = Network(FEATURES, hidden, OUTPUTS[loss], activation)
    return Problem(network, loss, Sampling(0, rows, rows, shards, "shuffle"), precision, 0)


def make_rows(problem, seed=0):
    random = np.random.default_rng(seed)
    rows = problem.sampling.rows
    x = random.normal(size=(rows, problem.network.features)).astype(problem.parameter_dtype)
    y = (
        random.normal(size=rows)
        if problem.loss == "squared_error"
        else random.integers(0, max(2, OUTPUTS[problem.loss]), rows)
    )
    return x, y.astype(problem.label_dtype)


def make_theta(problem, seed=1):
    """Random parameters, biases too: with biases 0 an error in them would hide."""
    theta = problem.layout.zeros()
    random = np.random.default_rng(seed)
    for view in problem.layout.views(theta).values():
        view[...] = random.normal(size=view.shape) * 0.7
    return theta


def flat_gradient(problem, program, theta, rows):
    loss, gradient = program(problem.layout.views(theta), *rows)
    return float(loss), problem.layout.fill(problem.layout.zeros(), gradient)


def numpy_outputs(parameters, x, layers, activate):
    """The outputs and the activations of every layer."""
    a = [x]
    for layer in range(layers):
        z = a[-1] @ parameters[f"layer{layer}.weight"] + parameters[f"layer{layer}.bias"]
        a.append(activate(z) if layer < layers - 1 else z)
    return z, a


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


NUMPY_ACTIVATIONS = {
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "gelu": lambda z: z * 0.5 * (1 + np.vectorize(math.erf)(z / np.sqrt(2))),
}


def numpy_row_losses(loss, z, y):
    if loss == "squared_error":
        return (z[:, 0] - y) ** 2
    if loss == "logistic":
        s = sigmoid(z[:, 0])
        return -y * np.log(s) - (1 - y) * np.log(1 - s)
    return -np.log(np.exp(z[np.arange(len(y)), y]) / np.exp(z).sum(axis=1))


@pytest.mark.parametrize("loss", ROW_LOSSES)
@pytest.mark.parametrize("model", MODELS, ids=model_name)
class TestEveryModelAndLoss:
    def test_loss_and_gradient(self, model, loss):
        """One compilation serves: definition, finite differences, directional derivative, masks, no recompilation."""
        problem = make_problem(model, loss)
        layout, program = problem.layout, leaf_program(problem)
        x, y = make_rows(problem)
        w = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0.0])
        theta = make_theta(problem)
        value, gradient = flat_gradient(problem, program, theta, (x, y, w))

        z, _ = numpy_outputs(layout.views(theta), x, len(model[0]) + 1, NUMPY_ACTIVATIONS[model[1]])
        assert value == pytest.approx(np.sum(w * numpy_row_losses(loss, z, y)), rel=1e-12)

        def loss_at(moved):
            return float(program(layout.views(moved), x, y, w)[0])

        h = 1e-5
        differences = layout.zeros()
        for entry in layout.entries:
            for i in range(entry.offset, entry.span.stop):
                step = layout.zeros()
                step[i] = h
                differences[i] = (loss_at(theta + step) - loss_at(theta - step)) / (2 * h)
        np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=2e-8)
        assert np.abs(gradient).max() > 0.1

        v = layout.fill(layout.zeros(), layout.views(np.random.default_rng(2).normal(size=layout.length)))
        directional = (loss_at(theta + h * v) - loss_at(theta - h * v)) / (2 * h)
        assert directional == pytest.approx(gradient @ v, rel=1e-6, abs=1e-7)

        masked = w == 0
        junk_x, junk_y = x.copy(), y.copy()
        junk_x[masked] = 1e3 * np.random.default_rng(3).normal(size=(3, FEATURES))
        junk_y[masked] = 1
        assert_same(flat_gradient(problem, program, theta, (junk_x, junk_y, w)), (value, gradient))
        junk_x[masked], junk_y[masked] = 0, 0
        assert_same(flat_gradient(problem, program, theta, (junk_x, junk_y, w)), (value, gradient))

        assert program._cache_size() == 1


def assert_same(got, expected):
    assert got[0] == expected[0]
    np.testing.assert_array_equal(got[1], expected[1])


def test_a_leaf_without_rows_is_zero():
    problem = make_problem(((5,), "relu"), "softmax_cross_entropy")
    nothing = np.zeros((ROWS, FEATURES)), np.zeros(ROWS, np.int32), np.zeros(ROWS)
    value, gradient = flat_gradient(problem, leaf_program(problem), make_theta(problem), nothing)
    assert value == 0
    assert not gradient.any()


def test_backpropagation_of_the_sigmoid_network_with_cross_entropy():
    """δ⁽ᴸ⁾ = a - y, δ⁽ˡ⁾ = g'(z⁽ˡ⁾) ⊙ Θ⁽ˡ⁾ᵀδ⁽ˡ⁺¹⁾, ∂L/∂Θ⁽ˡ⁾ = δ⁽ˡ⁺¹⁾a⁽ˡ⁾ᵀ; here Θᵀ is the weight [in, out]."""
    problem = make_problem(((6, 5), "sigmoid"), "logistic")
    x, y = make_rows(problem)
    theta = make_theta(problem)
    p = problem.layout.views(theta)
    _, gradient = leaf_program(problem)(p, x, y, np.ones(ROWS))

    z, a = numpy_outputs(p, x, 3, sigmoid)
    delta = sigmoid(z) - y[:, None]
    for layer in (2, 1, 0):
        np.testing.assert_allclose(gradient[f"layer{layer}.weight"], a[layer].T @ delta, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(gradient[f"layer{layer}.bias"], delta.sum(axis=0), rtol=1e-12, atol=1e-14)
        delta = (delta @ p[f"layer{layer}.weight"].T) * a[layer] * (1 - a[layer])


def test_backpropagation_of_two_layers_with_squared_error():
    """With a linear output, R the residuals: ∇W₂ = 2R vᵀ, ∇W₁ = 2(W₂ᵀR ⊙ v(1-v)) xᵀ."""
    problem = make_problem(((6,), "sigmoid"), "squared_error")
    x, y = make_rows(problem)
    p = problem.layout.views(make_theta(problem))
    _, gradient = leaf_program(problem)(p, x, y, np.ones(ROWS))

    z, (_, v, _) = numpy_outputs(p, x, 2, sigmoid)
    delta2 = 2 * (z - y[:, None])
    delta1 = delta2 @ p["layer1.weight"].T * v * (1 - v)
    expected = {
        "layer0.weight": x.T @ delta1,
        "layer0.bias": delta1.sum(axis=0),
        "layer1.weight": v.T @ delta2,
        "layer1.bias": delta2.sum(axis=0),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(gradient[name], value, rtol=1e-12, atol=1e-14)


def test_backpropagation_of_two_layers_with_sigmoid_outputs_and_squared_error():
    """The notes' own case: ∇W₂ = 2R ⊙ ŷ(1-ŷ) vᵀ, ∇W₁ = 2(W₂ᵀ(R ⊙ ŷ(1-ŷ)) ⊙ v(1-v)) xᵀ, for a vector ŷ."""
    network = Network(FEATURES, (6,), 3, "sigmoid")
    random = np.random.default_rng(0)
    p = {entry.name: random.normal(size=entry.shape) for entry in network.layout(np.dtype(np.float64)).entries}
    x, y = random.normal(size=(ROWS, FEATURES)), random.uniform(size=(ROWS, 3))

    def loss(parameters):
        return jnp.sum(jnp.square(jax.nn.sigmoid(network.apply(parameters, x)) - y))

    gradient = jax.jit(jax.grad(loss))(p)
    z, (_, v, _) = numpy_outputs(p, x, 2, sigmoid)
    y_hat = sigmoid(z)
    delta2 = 2 * (y_hat - y) * y_hat * (1 - y_hat)
    delta1 = delta2 @ p["layer1.weight"].T * v * (1 - v)
    np.testing.assert_allclose(gradient["layer1.weight"], v.T @ delta2, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(gradient["layer0.weight"], x.T @ delta1, rtol=1e-12, atol=1e-14)


def test_linear_regression_obeys_its_closed_form():
    """w_{t+1} - w* = (I - 2ηXᵀX)(w_t - w*) for the sum of squares (MATH.md), X with a column of ones for the bias."""
    problem = make_problem(((), "tanh"), "squared_error", rows=40)
    program, layout = leaf_program(problem), problem.layout
    x, y = make_rows(problem)
    ones = np.column_stack([x, np.ones(40)])
    best = np.linalg.lstsq(ones, y, rcond=None)[0]
    contraction = np.eye(FEATURES + 1) - 2 * 0.004 * ones.T @ ones
    theta, distance = make_theta(problem), None
    for _ in range(20):
        views = layout.views(theta)
        w = np.append(views["layer0.weight"][:, 0], views["layer0.bias"])
        if distance is not None:
            np.testing.assert_allclose(w - best, contraction @ distance, rtol=1e-10, atol=1e-12)
        distance = w - best
        theta = theta - 0.004 * flat_gradient(problem, program, theta, (x, y, np.ones(40)))[1]


def test_the_softmax_jacobian():
    """Cross-entropy's gradient in the outputs is softmax - one-hot, its Hessian the Jacobian y_i(δ_ij - y_j)."""
    z = np.array([0.3, -1.2, 2.0, 0.1])
    softmax = np.exp(z) / np.exp(z).sum()

    def loss(z):
        return softmax_cross_entropy(z[None], jnp.array([2]))[0]

    gradient, hessian = jax.jit(lambda z: (jax.grad(loss)(z), jax.hessian(loss)(z)))(z)
    np.testing.assert_allclose(gradient, softmax - np.eye(4)[2], rtol=1e-12, atol=1e-14)
    jacobian = np.diag(softmax) - np.outer(softmax, softmax)
    np.testing.assert_allclose(hessian, jacobian, rtol=1e-12, atol=1e-14)


def losses_and_slopes(row_loss, z, y):
    """The rows' losses and their derivatives in the outputs."""

    @jax.jit
    def both(z):
        total, backward = jax.vjp(lambda z: row_loss(z, jnp.asarray(y, jnp.int32)), z)
        return total, backward(jnp.ones_like(total))[0]

    losses, slopes = both(z)
    assert losses.dtype == slopes.dtype == z.dtype
    return np.asarray(losses), np.asarray(slopes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logistic_is_finite_at_large_outputs(dtype):
    z = np.array([[1000], [1000], [-1000], [-1000], [0]], dtype)
    losses, slopes = losses_and_slopes(logistic, z, [1, 0, 1, 0, 1])
    np.testing.assert_allclose(losses, [0, 1000, 1000, 0, np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(slopes[:, 0], [0, 1, -1, 0, -0.5], rtol=1e-6)


def test_logistic_is_as_exact_for_label_1_as_for_label_0():
    """The loss of (z, 1) is that of (-z, 0). Written softplus(z) - z it cancels: float32 has no gradient from z = 15 on."""
    z = np.array([[1], [5], [10], [15], [20], [50]], np.float32)
    zeros, ones = losses_and_slopes(logistic, -z, [0] * 6), losses_and_slopes(logistic, z, [1] * 6)
    np.testing.assert_allclose(zeros[0], np.log1p(np.exp(-z[:, 0].astype(np.float64))), rtol=1e-5)
    np.testing.assert_allclose(ones[0], zeros[0], rtol=1e-5)
    np.testing.assert_allclose(ones[1], -zeros[1], rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-12)])
def test_softmax_cross_entropy_is_finite_at_large_outputs(dtype, tolerance):
    z = np.array([[1000, -1000, 0], [1000, -1000, 0], [1000, 1000, -1000], [-1000, -1000, -1000]], dtype)
    losses, slopes = losses_and_slopes(softmax_cross_entropy, z, [0, 1, 1, 2])
    np.testing.assert_allclose(losses, [0, 2000, np.log(2), np.log(3)], rtol=tolerance)
    expected = [[0, 0, 0], [1, -1, 0], [0.5, -0.5, 0], [1 / 3, 1 / 3, -2 / 3]]
    np.testing.assert_allclose(slopes, expected, rtol=tolerance, atol=tolerance)


def test_logistic_is_the_notes_margin_form():
    """y ∈ {-1, +1}: ln(1 + exp(-yz)); both labels alike."""
    z = np.linspace(-15, 15, 61)
    for label, sign in ((0, -1), (1, 1)):
        losses = logistic(z[:, None], np.full(61, label, np.int32))
        np.testing.assert_allclose(losses, np.log1p(np.exp(-sign * z)), rtol=1e-8)


def test_two_class_softmax_is_logistic():
    z = np.random.default_rng(0).normal(size=(20, 2)) * 3
    y = np.arange(20, dtype=np.int32) % 2
    np.testing.assert_allclose(softmax_cross_entropy(z, y), logistic(z[:, 1:] - z[:, :1], y), rtol=1e-10)


def test_squared_error_has_no_half():
    assert squared_error(np.array([[3.0]]), np.array([1.0]))[0] == 4


def test_hits():
    signs = ROW_HITS["logistic"](np.array([[0.1], [0.1], [-0.1], [-0.1], [0.0]]), np.array([1, 0, 1, 0, 0]))
    assert signs.tolist() == [True, False, False, True, True]
    z = np.array([[3, 1, 2], [1, 3, 2], [1, 2, 3], [2, 2, 1]])
    assert ROW_HITS["softmax_cross_entropy"](z, np.array([0, 0, 2, 0])).tolist() == [True, False, True, True]
    assert set(ROW_LOSSES) - set(ROW_HITS) == {"squared_error"}


@pytest.mark.parametrize(("activation", "low", "high"), [("relu", 0, 1), ("leaky_relu", 0.01, 1)])
def test_the_slope_at_a_kink_lies_between_its_sides(activation, low, high):
    slope = jax.grad(ACTIVATIONS[activation])
    assert (slope(-2.0), slope(2.0)) == (pytest.approx(low), high)
    assert low <= slope(0.0) <= high


class TestInitialization:
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_limits_and_variance(self, activation):
        """Uniform in ±limit has variance limit²/3: 2/in (He) before rectifiers, 2/(in + out) (Glorot) elsewhere."""
        network = Network(200, (300, 100), 50, activation)
        layout = network.layout(np.dtype(np.float64))
        views = layout.views(network.initialize(0, layout))
        rectified = activation in ("relu", "leaky_relu", "gelu")
        for layer, (inputs, units) in enumerate([(200, 300), (300, 100), (100, 50)]):
            variance = 2 / inputs if rectified and layer < 2 else 2 / (inputs + units)
            weight = views[f"layer{layer}.weight"]
            limit = np.sqrt(3 * variance)
            assert 0.99 * limit < weight.max() <= limit
            assert -limit <= weight.min() < -0.99 * limit
            assert weight.var() == pytest.approx(variance, rel=0.05)
            assert abs(weight.mean()) < 5 * np.sqrt(variance / weight.size)
            assert not views[f"layer{layer}.bias"].any()

    def test_same_seed_same_bytes(self):
        network = Network(7, (5,), 2, "relu")
        layout = network.layout(np.dtype(np.float32))
        assert network.initialize(3, layout).tobytes() == network.initialize(3, layout).tobytes()
        assert network.initialize(3, layout).tobytes() != network.initialize(4, layout).tobytes()

    def test_layers_differ(self):
        network = Network(6, (6, 6), 6, "tanh")
        layout = network.layout(np.dtype(np.float64))
        views = layout.views(network.initialize(0, layout))
        weights = [views[f"layer{layer}.weight"] for layer in range(3)]
        for one, other in itertools.combinations(weights, 2):
            assert not np.any(one == other)

    def test_the_dtype_only_rounds(self):
        network = Network(7, (5, 4), 2, "gelu")
        double, single = (network.layout(np.dtype(dtype)) for dtype in (np.float64, np.float32))
        wide, narrow = double.views(network.initialize(9, double)), single.views(network.initialize(9, single))
        for name, value in wide.items():
            np.testing.assert_array_equal(value.astype(np.float32), narrow[name])

    def test_padding_is_zero(self):
        network = Network(3, (5,), 2, "relu")
        layout = network.layout(np.dtype(np.float32))
        flat = network.initialize(0, layout)
        for view in layout.views(flat).values():
            view[...] = 0
        assert not flat.any()


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_leaves_of_a_full_batch_add_up_to_the_full_gradient(precision, tolerance):
    """B = n: the tree's sum over all leaves, masked remainder included, is the gradient of all rows in one program."""
    model, loss, rows, shards = ((6,), "tanh"), "softmax_cross_entropy", 203, 8
    whole, parts = (make_problem(model, loss, precision, rows, count) for count in (1, shards))
    x, y = make_rows(whole)
    theta = make_theta(whole)
    ones = np.ones(rows, whole.parameter_dtype)
    expected_loss, expected = flat_gradient(whole, leaf_program(whole), theta, (x, y, ones))

    program, sampling = leaf_program(parts), parts.sampling

    def leaf(node):
        if node[1] - node[0] > 1:
            return None
        shard, local = sampling.leaf(node[0], 0)
        count, dealt = len(local), local * shards + shard
        leaf_x = np.zeros((sampling.leaf_rows, FEATURES), x.dtype)
        leaf_y, leaf_w = np.zeros(sampling.leaf_rows, y.dtype), np.zeros(sampling.leaf_rows, x.dtype)
        leaf_x[:count], leaf_y[:count], leaf_w[:count] = x[dealt], y[dealt], 1
        return np.array([*flat_gradient(parts, program, theta, (leaf_x, leaf_y, leaf_w))], object)

    loss_sum, total = reduce_node((0, shards), leaf, lambda _, left, right: left + right)
    assert loss_sum == pytest.approx(expected_loss, rel=tolerance)
    np.testing.assert_allclose(total, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
    assert total.dtype == expected.dtype
    assert program._cache_size() == 1


@pytest.mark.parametrize("loss", ROW_LOSSES)
def test_bfloat16_gives_float32_gradients_close_to_float32_ones(loss):
    model = ((16, 8), "relu")
    exact, rounded = (make_problem(model, loss, precision, rows=64) for precision in ("float32", "bfloat16"))
    x, y = make_rows(exact)
    theta, w = make_theta(exact), np.ones(64, np.float32)
    program = leaf_program(rounded)
    value, gradient = program(rounded.layout.views(theta), x, y, w)
    assert {value.dtype, *(g.dtype for g in gradient.values())} == {np.dtype(np.float32)}

    expected_loss, expected = flat_gradient(exact, leaf_program(exact), theta, (x, y, w))
    loss_sum, got = flat_gradient(rounded, program, theta, (x, y, w))
    assert loss_sum == pytest.approx(expected_loss, rel=0.03)
    difference = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert 1e-5 < difference < 0.03

    z = jax.jit(lambda p: network_outputs(rounded, p, x))(rounded.layout.views(theta))
    row_losses = numpy_row_losses(loss, np.asarray(z, np.float64), y)
    assert loss_sum == pytest.approx(row_losses.sum(), rel=1e-4), "losses of rounded outputs are float32 losses"


@pytest.mark.parametrize("loss", ROW_LOSSES)
def test_float32_gradients_are_close_to_float64_ones(loss):
    model = ((16, 8), "tanh")
    exact, rounded = (make_problem(model, loss, precision, rows=64) for precision in ("float64", "float32"))
    x, y = make_rows(rounded)
    theta = make_theta(rounded)
    rounded_gradient = flat_gradient(rounded, leaf_program(rounded), theta, (x, y, np.ones(64, np.float32)))[1]
    parameters = {name: view.astype(np.float64) for name, view in rounded.layout.views(theta).items()}
    _, gradient = leaf_program(exact)(parameters, x.astype(np.float64), y.astype(exact.label_dtype), np.ones(64))
    for name, view in rounded.layout.views(rounded_gradient).items():
        assert np.linalg.norm(view - gradient[name]) < 1e-5 * np.linalg.norm(gradient[name])
