//! The file that producers in other languages check themselves against says what we do.

use segmenter_core::names::Shape;
use segmenter_core::partitioner;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    key: String,
    hash: String,
    partitions: u32,
    partition: u32,
}

#[test]
fn the_published_partition_vectors_hold() {
    let text = include_str!("../vectors/partition.json");
    let vectors: Vec<Vector> = serde_json::from_str(text).expect("the file is a list of vectors");
    assert!(vectors.len() >= 200, "{} vectors", vectors.len());
    for v in vectors {
        assert_eq!(partitioner::hash(&v.key).to_string(), v.hash, "{:?}", v.key);
        let shape = Shape::new(v.partitions, 1).expect("a legal count");
        let partition = partitioner::partition(&v.key, shape);
        assert_eq!(
            partition.0, v.partition,
            "{:?} over {}",
            v.key, v.partitions
        );
    }
}
