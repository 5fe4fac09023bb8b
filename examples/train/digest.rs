//! A digest of the weights: two runs with the same one ended at the same bits.

use crate::network::Network;

/// FNV-1a, 64 bits, over the little-endian bytes of the parameters: layer by layer, each row by row.
pub(crate) fn digest(network: &Network) -> u64 {
    let parameters = network.layers.iter().flat_map(|layer| &layer.parameters.data);
    parameters
        .flat_map(|x| x.to_bits().to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
