//! SHAKE128 (FIPS 202), for the accumulated test vector alone.

const RATE: usize = 168;

pub(crate) struct Shake128 {
    state: [u64; 25],
    position: usize,
    squeezing: bool,
}

impl Shake128 {
    pub(crate) fn new() -> Self {
        Self { state: [0; 25], position: 0, squeezing: false }
    }

    pub(crate) fn absorb(&mut self, bytes: &[u8]) {
        assert!(!self.squeezing);
        for byte in bytes {
            self.mix(*byte);
            if self.position == RATE {
                self.permute();
            }
        }
    }

    pub(crate) fn squeeze(&mut self, length: usize) -> Vec<u8> {
        if !self.squeezing {
            self.mix(0x1f);
            self.position = RATE - 1;
            self.mix(0x80);
            self.permute();
            self.squeezing = true;
        }
        let mut output = Vec::with_capacity(length);
        for _ in 0..length {
            if self.position == RATE {
                self.permute();
            }
            output.push(self.state[self.position / 8].to_le_bytes()[self.position % 8]);
            self.position += 1;
        }
        output
    }

    fn mix(&mut self, byte: u8) {
        self.state[self.position / 8] ^= u64::from(byte) << (8 * (self.position % 8));
        self.position += 1;
    }

    /// Keccak-f[1600]; the round constants come from their shift register.
    fn permute(&mut self) {
        let mut register: u8 = 1;
        for _ in 0..24 {
            let a = &mut self.state;
            let c: [u64; 5] = std::array::from_fn(|x| (0..5).fold(0, |sum, y| sum ^ a[x + 5 * y]));
            for (index, lane) in a.iter_mut().enumerate() {
                let x = index % 5;
                *lane ^= c[(x + 4) % 5] ^ c[(x + 1) % 5].rotate_left(1);
            }
            let (mut x, mut y, mut current) = (1, 0, a[1]);
            for step in 0..24_u32 {
                (x, y) = (y, (2 * x + 3 * y) % 5);
                let rotation = ((step + 1) * (step + 2) / 2) % 64;
                current = std::mem::replace(&mut a[x + 5 * y], current.rotate_left(rotation));
            }
            for row in a.chunks_exact_mut(5) {
                let old: [u64; 5] = (&*row).try_into().unwrap();
                for (x, lane) in row.iter_mut().enumerate() {
                    *lane = old[x] ^ (!old[(x + 1) % 5] & old[(x + 2) % 5]);
                }
            }
            for bit in 0..7 {
                if register & 1 == 1 {
                    a[0] ^= 1 << ((1_u32 << bit) - 1);
                }
                let overflow = register >> 7;
                register = (register << 1) ^ (overflow * 0x71);
            }
        }
        self.position = 0;
    }
}

#[test]
fn the_empty_message_has_its_published_digest() {
    assert_eq!(
        hex::encode(Shake128::new().squeeze(32)),
        "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26"
    );
}
