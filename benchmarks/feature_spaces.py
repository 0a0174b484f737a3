"""How much of an image's class its features know, and their cost: ``python benchmarks/feature_spaces.py FOLDER [--edge 96] ...``.

The accuracy of five nearest neighbours among 2,000 training images on 1,000 test images of a folder of images (or any other
data source, kind:path), in pixels and in EfficientNet-Lite0's features at several sizes of its input.
"""

import argparse
import time

import torch
from sklearn.neighbors import KNeighborsClassifier

from gmmcli.data.dataset import Split
from gmmcli.data.sources import parse_source
from gmmcli.metrics.features.efficientnet import load_efficientnet
from gmmcli.metrics.features.spaces import Space, efficientnet_space, pixel_space


def knn_accuracy(space: Space, train: Split, test: Split) -> tuple[float, float]:
    """Return accuracy and seconds an image."""
    start = time.perf_counter()
    known, asked = space.embed(train.images), space.embed(test.images)
    seconds = (time.perf_counter() - start) / (len(known) + len(asked))
    return KNeighborsClassifier(5).fit(known, train.labels).score(asked, test.labels), seconds


def main() -> None:
    """Print accuracy and milliseconds an image, space by space."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--edge", type=int, action="append")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    dataset = parse_source(arguments.source if ":" in arguments.source else f"folder:{arguments.source}").load()
    train, test = (split.subset(n, arguments.seed) for split, n in ((dataset.train, 2000), (dataset.test, 1000)))
    print(f"{dataset.name}, {len(train)} training and {len(test)} test images, {torch.get_num_threads()} threads")
    spaces = {"pixels": pixel_space()}
    spaces |= {
        f"efficientnet-lite0 at {edge}": efficientnet_space(load_efficientnet(edge=edge)) for edge in arguments.edge or (64, 96, 128)
    }
    for name, space in spaces.items():
        accuracy, seconds = knn_accuracy(space, train, test)
        print(f"{name:24} kNN accuracy {accuracy:.1%}, {1000 * seconds:.2f} ms an image", flush=True)


if __name__ == "__main__":
    main()
