"""What leaving broken images out of an attack saves: ``python benchmarks/attack.py [RUN] [--n 360] [--eps 8/255]``.

Every PGD attack of the audit's suite, in turn on the images that the ones before it left unbroken, each image dropped at the step that
breaks it; against each attack on all images through all steps. Counted in forward passes of one image; accuracy must come out alike.
"""

import argparse
from dataclasses import replace
from fractions import Fraction

from gmmcli.attacks.audit import suite
from gmmcli.attacks.pixel_model import pixel_logits
from gmmcli.attacks.within_ball import run
from gmmcli.core.classifier import frozen
from gmmcli.evaluate.robustness import attacked
from gmmcli.evaluate.subject import Subject


def main() -> None:
    """Print passes and accuracy, attack by attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--n", type=int, default=360)
    parser.add_argument("--eps", type=lambda text: float(Fraction(text)), default=8 / 255)
    arguments = parser.parse_args()
    subject = Subject.open(arguments.run, n=arguments.n)
    model, pixels, labels = attacked(subject)
    with frozen(subject.model):
        unbroken = pixel_logits(model, pixels).argmax(1) == labels
        everywhere, right = unbroken.clone(), unbroken.clone()
        dropped = whole = 0
        for name, attack in suite(len(subject.card.class_names)).items():
            if attack.kind != "pgd":
                continue
            rows = unbroken.nonzero().squeeze(1)
            one = run(attack, model, pixels[rows], labels[rows], arguments.eps)
            unbroken[rows] = one.unbroken
            every = right.nonzero().squeeze(1)
            all_of_them = run(replace(attack, throughout=True), model, pixels[every], labels[every], arguments.eps)
            everywhere[every] &= all_of_them.unbroken
            dropped, whole = dropped + one.forwards, whole + all_of_them.forwards
            accuracies = f"accuracy {unbroken.double().mean():.2%} and {everywhere.double().mean():.2%}"
            print(f"{name:14} {one.forwards:>9,} against {all_of_them.forwards:>9,} forward passes; {accuracies} so far", flush=True)
    print(f"{subject.run.recipe.name}, n = {len(labels)}: {whole / max(1, dropped):.1f} times fewer passes")


if __name__ == "__main__":
    main()
