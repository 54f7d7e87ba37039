//! Arithmetic in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1 (0x11b), in constant time.
//!
//! No table and no branch depends on a value: table look-ups leak through the cache
//! (CVE-2023-25000).

/// The product, by shifts and masks.
pub(crate) const fn multiply(left: u8, right: u8) -> u8 {
    let (mut left, mut product, mut bit) = (left, 0_u8, 0);
    while bit < 8 {
        product ^= ((right >> bit) & 1).wrapping_neg() & left;
        left = (left << 1) ^ ((left >> 7).wrapping_neg() & 0x1b);
        bit += 1;
    }
    product
}

/// The multiplicative inverse, as the power 254; 0 for 0.
pub(crate) const fn invert(value: u8) -> u8 {
    let mut power = value;
    let mut step = 0;
    // 254 = 0b1111_1110: six times square and multiply, then one square.
    while step < 6 {
        power = multiply(multiply(power, power), value);
        step += 1;
    }
    multiply(power, power)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 197, section 4.2: {57} · {83} = {c1}, {57} · {13} = {fe}, and {53} inverts to {ca}.
    #[test]
    fn the_published_products_hold() {
        assert_eq!(multiply(0x57, 0x83), 0xc1);
        assert_eq!(multiply(0x57, 0x13), 0xfe);
        assert_eq!(invert(0x53), 0xca);
    }

    #[test]
    fn every_element_but_zero_has_its_inverse() {
        assert_eq!(invert(0), 0);
        for value in 1..=u8::MAX {
            assert_eq!(multiply(value, invert(value)), 1, "{value}");
        }
    }

    /// Catalogue: CVE-2023-25000.
    #[test]
    fn the_arithmetic_looks_nothing_up_and_branches_on_counts_alone() {
        let code = include_str!("gf256.rs").split("#[cfg(test)]").next().unwrap();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: Vec<&str> = code.flat_map(str::split_whitespace).collect();
        for branch in ["if", "match", "for", "loop", "static", "&&", "||"] {
            assert!(!code.contains(&branch), "{branch}");
        }
        let code = code.join(" ");
        assert!(!code.contains('[') && !code.contains(".get") && !code.contains('?'));
        let loops: Vec<&str> = code.split("while ").skip(1).collect();
        assert!(
            loops.iter().all(|after| after.starts_with("bit < 8") || after.starts_with("step < 6"))
        );
    }

    /// Catalogue: CVE-2023-25000.
    #[test]
    fn multiplication_agrees_with_long_division() {
        for left in 0..=u8::MAX {
            for right in 0..=u8::MAX {
                let mut product = 0_u16;
                for bit in 0..8 {
                    if right & (1 << bit) != 0 {
                        product ^= u16::from(left) << bit;
                    }
                }
                for bit in (8..16).rev() {
                    if product & (1 << bit) != 0 {
                        product ^= 0x11b << (bit - 8);
                    }
                }
                assert_eq!(u16::from(multiply(left, right)), product);
            }
        }
    }
}
