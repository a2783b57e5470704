//! Java's default partitioner, written a second time so that the one under test is not its own judge.

/// The partition that Apache Kafka's Java client chooses for a key.
#[must_use]
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let mix = |word: u32| {
        let word = word.wrapping_mul(0x5bd1_e995);
        (word ^ (word >> 24)).wrapping_mul(0x5bd1_e995)
    };
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in words.by_ref() {
        let word = u32::from(word[0]) | u32::from(word[1]) << 8 | u32::from(word[2]) << 16 | u32::from(word[3]) << 24;
        hash = hash.wrapping_mul(0x5bd1_e995) ^ mix(word);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let rest = rest.iter().rev().fold(0, |all, byte| all << 8 | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(0x5bd1_e995);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(0x5bd1_e995);
    hash ^= hash >> 15;
    (hash & 0x7fff_ffff) as i32 % partitions
}

#[cfg(test)]
mod tests {
    use super::partition_of;

    #[test]
    fn it_is_that_of_apache_kafkas_own_tests() {
        // From the table in Apache Kafka's UtilsTest.testMurmur2, signed there.
        let table: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in table {
            assert_eq!(partition_of(key, i32::MAX), (hash & 0x7fff_ffff) % i32::MAX, "{key:?}");
        }
    }
}
