//! Published vectors, and what no key is made of.

use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::*;

fn url(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn pem(der: &SecretBytes) -> SecretText {
    let body = STANDARD.encode(der.expose());
    SecretText::new(format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"))
}

/// RSAPublicKey (RFC 8017) of two numbers whose highest bit is as it is in the test's keys.
fn pkcs1(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| {
        let padded = [&[0], bytes].concat();
        let bytes = if bytes[0] >= 0x80 { padded.as_slice() } else { bytes };
        [&[2, 0x82], u16::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), bytes].concat()
    };
    let short = [&[2, u8::try_from(exponent.len()).unwrap()], exponent].concat();
    let body = [number(modulus), short].concat();
    [&[0x30, 0x82], u16::try_from(body.len()).unwrap().to_be_bytes().as_slice(), &body].concat()
}

/// RFC 8037, appendix A.1 to A.4.
#[test]
fn the_published_ed25519_key_signs_and_is_named_as_published() {
    let seed = url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
    let prefix = hex::decode("302e020100300506032b657004220420").unwrap();
    let key = SecretBytes::new([prefix, seed].concat());
    let key = SigningKey::from_pkcs8(Algorithm::EdDsa, &key).unwrap();
    let public = key.public().unwrap();
    assert_eq!(public.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    assert!(public.to_jwk().contains("\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\""));
    let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = key.sign(message).unwrap();
    assert_eq!(
        URL_SAFE_NO_PAD.encode(&signature),
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
    assert_eq!(public.verify(message, &signature), Ok(()));
}

/// RFC 7515, appendix A.3.
#[test]
fn the_published_es256_signature_is_taken() {
    let x = url("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
    let y = url("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let public = PublicKey::parse(Algorithm::Es256, &[vec![4], x, y].concat()).unwrap();
    let message = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6\
        Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = url(
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    );
    assert_eq!(public.verify(message, &signature), Ok(()));
    assert_eq!(public.verify(b"else", &signature), Err(JoseError::Signature));
    assert_eq!(public.verify(message, &signature[1..]), Err(JoseError::Signature));
    let members = "\"use\":\"sig\",\"crv\":\"P-256\",\"kty\":\"EC\",\
                   \"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\
                   \"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}";
    assert!(public.to_jwk().ends_with(members), "{}", public.to_jwk());
}

#[test]
fn only_a_whole_uncompressed_point_and_32_bytes_are_public_keys() {
    let of = |algorithm, mark: u8, size| {
        PublicKey::parse(algorithm, &[vec![mark], vec![1; size]].concat()).map(drop)
    };
    assert_eq!(of(Algorithm::Es256, 4, 64), Ok(()));
    assert_eq!(of(Algorithm::Es384, 4, 96), Ok(()));
    assert_eq!(of(Algorithm::EdDsa, 1, 31), Ok(()));
    for (algorithm, mark, size) in [
        (Algorithm::Es256, 2, 64),
        (Algorithm::Es256, 4, 63),
        (Algorithm::Es256, 4, 96),
        (Algorithm::Es384, 4, 64),
        (Algorithm::EdDsa, 1, 30),
        (Algorithm::EdDsa, 1, 32),
    ] {
        assert_eq!(of(algorithm, mark, size), Err(JoseError::Key), "{algorithm:?} {mark} {size}");
    }
    assert_eq!(PublicKey::parse(Algorithm::Es256, &[]).map(drop), Err(JoseError::Key));
}

/// RFC 7638, section 3.1.
#[test]
fn the_published_rsa_key_is_named_as_published() {
    let modulus = url(
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_\
         BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_F\
         DW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4v\
         MQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    );
    let public = PublicKey::parse(Algorithm::Rs256, &pkcs1(&modulus, &[1, 0, 1])).unwrap();
    assert_eq!(public.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    assert_eq!(public.rsa_bits(), 2048);
}

#[test]
fn every_kind_of_key_survives_the_store_and_its_signatures_fit() {
    for algorithm in Algorithm::ALL {
        let key = SigningKey::generate(algorithm, 2048).unwrap();
        let pkcs8 = key.to_pkcs8().unwrap();
        let again = SigningKey::from_pem(algorithm, &pem(&pkcs8)).unwrap();
        let public = again.public().unwrap();
        assert_eq!(public, key.public().unwrap());
        assert_eq!(public, PublicKey::parse(algorithm, public.as_bytes()).unwrap());
        let signature = key.sign(b"message").unwrap();
        assert_eq!(public.verify(b"message", &signature), Ok(()), "{}", algorithm.name());
        assert_eq!(public.verify(b"massage", &signature), Err(JoseError::Signature));
        assert_eq!(Algorithm::parse(algorithm.name()), Some(algorithm));
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", algorithm.name()));
        // A key is of use with its own algorithm alone, but for the two of RSA.
        for other in Algorithm::ALL {
            let fits = other == algorithm || (other.is_rsa() && algorithm.is_rsa());
            assert_eq!(SigningKey::from_pkcs8(other, &pkcs8).is_ok(), fits);
        }
    }
}

#[test]
fn an_rsa_key_has_the_size_that_was_asked_for() {
    for bits in [2048, 3072, 4096] {
        let key = SigningKey::generate(Algorithm::Ps256, bits).unwrap();
        assert_eq!(key.public().unwrap().rsa_bits(), bits);
    }
}

#[test]
fn a_signature_of_one_rsa_padding_is_none_of_the_other() {
    let key = SigningKey::generate(Algorithm::Rs256, 2048).unwrap();
    let signature = key.sign(b"m").unwrap();
    let public = key.public().unwrap();
    let other = PublicKey::parse(Algorithm::Ps256, public.as_bytes()).unwrap();
    assert_eq!(other.verify(b"m", &signature), Err(JoseError::Signature));
}

#[test]
fn names_of_algorithms_have_one_spelling() {
    for name in ["none", "None", "", "HS256", "rs256", "EDDSA", "RS512", "ES256K"] {
        assert_eq!(Algorithm::parse(name), None, "{name}");
    }
}

#[test]
fn rsa_keys_are_neither_tiny_nor_giant_nor_of_a_small_exponent() {
    for bits in [0, 512, 1024, 2047, 2049, 8192, 1 << 20] {
        let made = SigningKey::generate(Algorithm::Rs256, bits).map(drop);
        assert_eq!(made, Err(JoseError::Bits), "{bits}");
    }
    let sized = |bytes: usize, exponent: &[u8]| {
        let mut modulus = vec![0xff; bytes];
        modulus[bytes - 1] = 0x0d;
        PublicKey::parse(Algorithm::Rs256, &pkcs1(&modulus, exponent)).map(drop)
    };
    assert_eq!(sized(256, &[1, 0, 1]), Ok(()));
    assert_eq!(sized(512, &[1, 0, 1]), Ok(()));
    assert_eq!(sized(1024, &[1, 0, 1]), Err(JoseError::Size));
    assert_eq!(sized(256, &[3]), Err(JoseError::Exponent));
    assert!(sized(128, &[1, 0, 1]).is_err());
}

#[test]
fn what_is_not_one_unencrypted_pkcs8_block_is_refused() {
    let key = SigningKey::generate(Algorithm::EdDsa, 0).unwrap().to_pkcs8().unwrap();
    let good = pem(&key);
    let good = good.expose();
    let body = BASE64_STANDARD.encode(key.expose());
    let cases = [
        String::new(),
        body.clone(),
        good.replace("PRIVATE KEY", "EC PRIVATE KEY"),
        good.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        good.replace("PRIVATE KEY", "PUBLIC KEY"),
        format!("{good}{good}"),
        format!("{good}trailing"),
        good.replace(&body, "!!!"),
        good.replace(&body, &"A".repeat(20_000)),
    ];
    for text in cases {
        let refused = SigningKey::from_pem(Algorithm::EdDsa, &SecretText::new(text.clone()));
        assert_eq!(refused.map(drop), Err(JoseError::Pem), "{text}");
    }
    let cut = SecretBytes::new(key.expose()[..key.expose().len() - 1].to_vec());
    assert!(SigningKey::from_pem(Algorithm::EdDsa, &pem(&cut)).is_err());
}
