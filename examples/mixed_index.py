"""Search an index of teacher embeddings with the queries of a student, and see how much of the teacher's answer comes back.

The index and the queries are made by ``sparseformers embed`` (docs/mixed-index.md has the commands)::

    python examples/mixed_index.py index.parquet --teacher teacher.parquet --student student.parquet

recall@10 is the share of the ten rows nearest to the teacher's query that are among the ten nearest to the student's, averaged
over the queries; the search is exact, by cosine. class-recall@10 is the share of queries with an image of their own class, which
is the folder that a file lies in, among the ten. Nothing here knows about sparseformers: an index is a table.
"""

from __future__ import annotations

import argparse
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow.parquet as pq

NEIGHBOURS = 10
AT_ONCE = 512
"""Queries whose similarities to the whole index are held at once."""


def read_index(path: Path) -> tuple[list[str], np.ndarray]:
    """File names, and embeddings of length 1: rows x D, float32."""
    table = pq.read_table(path, columns=["file_name", "embedding"]).combine_chunks()
    embeddings = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    rows = embeddings.reshape(len(table), -1).astype(np.float32)
    return table["file_name"].to_pylist(), rows / np.linalg.norm(rows, axis=1, keepdims=True)


def nearest(queries: np.ndarray, index: np.ndarray, count: int = NEIGHBOURS) -> np.ndarray:
    """The rows of the index that are nearest to each query by cosine, in no order: Q x count."""
    found = [
        np.argpartition(-(queries[start : start + AT_ONCE] @ index.T), count, axis=1)[:, :count]
        for start in range(0, len(queries), AT_ONCE)
    ]
    return np.concatenate(found)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of the true neighbours that were found, averaged over the queries."""
    return float(np.mean([np.isin(true, ours).mean() for ours, true in zip(found, truth, strict=True)]))


def class_recall(found: np.ndarray, classes: list[str], index_classes: list[str]) -> float:
    """The share of queries with a row of their own class among those found."""
    known = np.array(index_classes)
    return float(np.mean([own in known[rows] for own, rows in zip(classes, found, strict=True)]))


def class_of(file_name: str) -> str:
    """The folder that a file lies in."""
    return PurePosixPath(file_name).parent.name


def main() -> None:
    """Prints a row for the teacher and for each student."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="the teacher's embeddings of the images to be found")
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's embeddings of the query images")
    parser.add_argument("--student", type=Path, nargs="+", required=True, help="students' embeddings of the same images")
    parser.add_argument("--among", type=int, default=NEIGHBOURS, help="how many results to look for the teacher's ten among")
    options = parser.parse_args()

    names, index = read_index(options.index)
    query_names, teacher = read_index(options.teacher)
    index_classes, classes = [class_of(name) for name in names], [class_of(name) for name in query_names]
    truth = nearest(teacher, index)
    print(f"{len(query_names):,} queries, {len(names):,} images in the index; the teacher's ten among {options.among} results")
    print(f"{'queries':40} {'recall@10':>10} {'class-recall@10':>16}")
    for path in (options.teacher, *options.student):
        own_names, queries = read_index(path)
        if own_names != query_names:
            raise SystemExit(f"'{path}' and '{options.teacher}' are not of the same images.")
        found = nearest(queries, index, options.among)
        print(f"{path.name:40} {recall(found, truth):10.1%} {class_recall(found, classes, index_classes):16.1%}")


if __name__ == "__main__":
    main()
