"""Each example, with less data, learns what an untrained or broken model does not know."""

import matrix_factorization
import multi_categorical
import text_classification


def test_text_classification_finds_the_package_of_a_docstring():
    # The largest package has .45 of the docstrings; dense layers over embeddings that do not learn reach .65.
    assert text_classification.main(packages=("email", "logging", "unittest"), epochs=6) > 0.85


def test_matrix_factorization_comes_near_the_noise():
    # Predicting the mean has 1.35, the biases without the embeddings 1.17, the means without the noise .49.
    assert matrix_factorization.main(num_users=200, num_items=100, num_ratings=10_000, epochs=60) < 0.65


def test_multi_categorical_ranks_the_clicks():
    # Knowing nothing is .5; dense layers over embeddings that do not learn reach .65; the true probabilities have .83.
    assert multi_categorical.main(num_train=50_000, num_test=10_000) > 0.72
