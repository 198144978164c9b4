"""Downloads and prepares a data set of tensorflow_datasets, on purpose and visibly.

    python tools/prepare_dataset.py cifar10 --data_dir=DIR

Training never downloads. For data sets that must be fetched by hand, such as imagenet2012, this
prints which files to put where.
"""

from __future__ import annotations

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="NAME or NAME/CONFIG of tensorflow_datasets, or shapes")
    parser.add_argument("--data_dir", help="where it is prepared (default: ~/tensorflow_datasets)")
    arguments = parser.parse_args()

    import tensorflow_datasets as tfds

    from simclr_tf.data import shapes

    if arguments.name == "shapes":
        builder = shapes.prepare(arguments.data_dir)
    else:
        builder = tfds.builder(arguments.name, data_dir=arguments.data_dir)
        builder.download_and_prepare()
    for name, split in builder.info.splits.items():
        print(f"{name}: {split.num_examples:,} examples")
    print(f"prepared in {builder.data_dir}")


if __name__ == "__main__":
    main()
