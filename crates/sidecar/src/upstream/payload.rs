//! The bytes of a request's body: up to three pieces, because a change in the middle copies nothing.

use bytes::{Buf, Bytes};

/// Pieces in order.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    pieces: [Bytes; 3],
}

// === impl Payload ===

impl From<[Bytes; 3]> for Payload {
    fn from(pieces: [Bytes; 3]) -> Payload {
        Payload { pieces }
    }
}

impl From<Bytes> for Payload {
    fn from(body: Bytes) -> Payload {
        Payload { pieces: [body, Bytes::new(), Bytes::new()] }
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.iter().find(|piece| !piece.is_empty()).map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        let filled = self.pieces.iter().filter(|piece| !piece.is_empty());
        filled.zip(slices).map(|(piece, slice)| *slice = std::io::IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut bytes: usize) {
        for piece in &mut self.pieces {
            let step = bytes.min(piece.len());
            piece.advance(step);
            bytes -= step;
        }
        assert_eq!(bytes, 0, "nothing lies behind the end");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_read_as_one() {
        let pieces = [&b"ab"[..], b"", b"cde"].map(Bytes::from_static);
        let mut payload = Payload::from(pieces);
        assert_eq!(payload.remaining(), 5);
        payload.advance(1);
        let mut slices = [std::io::IoSlice::new(b""); 4];
        assert_eq!(payload.chunks_vectored(&mut slices), 2);
        assert_eq!(payload.copy_to_bytes(4), "bcde");
        assert!(!payload.has_remaining());
    }
}
