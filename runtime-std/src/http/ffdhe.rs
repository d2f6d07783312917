//! The Diffie-Hellman key exchange without elliptic curves (RFC 7919), for firmware that has none, such as OVMF until 2023.
//!
//! ring does not have it. Clients with elliptic curves prefer those.

use std::sync::{Arc, LazyLock};

use crypto_bigint::{
    Odd, U256, U2048,
    modular::{FixedMontyForm, FixedMontyParams},
};
use rustls::{
    CipherSuite, Error, NamedGroup, PeerMisbehaved, SupportedCipherSuite, Tls12CipherSuite,
    crypto::{
        ActiveKeyExchange, CipherSuiteCommon, CryptoProvider, GetRandomFailed, KeyExchangeAlgorithm, SecureRandom,
        SharedSecret, SupportedKxGroup,
        ring::{self, cipher_suite::*},
    },
    ffdhe_groups::{FFDHE2048, FfdheGroup},
};

type Params = FixedMontyParams<{ U2048::LIMBS }>;

/// The arithmetic modulo the prime of the group.
static PARAMS: LazyLock<Option<Params>> =
    LazyLock::new(|| Option::from(Odd::new(U2048::from_be_slice(FFDHE2048.p))).map(Params::new));

/// The cipher suites: those of ring with the other key exchange.
static SUITES: LazyLock<Vec<Tls12CipherSuite>> = LazyLock::new(|| {
    let suites = [
        (TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, CipherSuite::TLS_DHE_RSA_WITH_AES_128_GCM_SHA256),
        (TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, CipherSuite::TLS_DHE_RSA_WITH_AES_256_GCM_SHA384),
    ];
    let with_dhe = |(suite, number)| match suite {
        SupportedCipherSuite::Tls12(suite) => Some(Tls12CipherSuite {
            common: CipherSuiteCommon { suite: number, ..suite.common },
            kx: KeyExchangeAlgorithm::DHE,
            ..*suite
        }),
        SupportedCipherSuite::Tls13(_) => None,
    };
    suites.into_iter().filter_map(with_dhe).collect()
});

/// Returns ring's algorithms and this key exchange.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.extend(SUITES.iter().map(SupportedCipherSuite::Tls12));
    provider.kx_groups.push(&Ffdhe2048);
    provider.into()
}

/// The group of 2,048 bits.
#[derive(Debug)]
struct Ffdhe2048;

/// A key exchange that waits for the public key of the client.
struct KeyExchange {
    secret: U256,
    public: [u8; 256],
}

/// Returns the power of a number in the group.
fn power(base: &U2048, exponent: &U256) -> Result<U2048, Error> {
    let params = PARAMS.ok_or_else(|| Error::General("the prime of FFDHE2048 is even".into()))?;
    Ok(FixedMontyForm::new(base, &params).pow(exponent).retrieve())
}

impl SupportedKxGroup for Ffdhe2048 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        // 225 bits are enough (RFC 7919, appendix A.1).
        let mut secret = [0; 32];
        let random: &dyn SecureRandom = ring::default_provider().secure_random;
        random.fill(&mut secret).map_err(|GetRandomFailed| Error::FailedToGetRandomBytes)?;
        let secret = U256::from_be_slice(&secret);
        let public = power(&U2048::from_u8(2), &secret)?.to_be_bytes().into();
        Ok(Box::new(KeyExchange { secret, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        Some(FFDHE2048)
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::FFDHE2048
    }
}

impl ActiveKeyExchange for KeyExchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let invalid = || Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);
        let mut padded = [0; 256];
        let start = padded.len().checked_sub(peer.len()).ok_or_else(invalid)?;
        padded[start..].copy_from_slice(peer);
        let peer = U2048::from_be_slice(&padded);
        // Neither 0 nor 1 nor the last number of the group: these would make the secret known (RFC 7919 section 5.1).
        let last = U2048::from_be_slice(FFDHE2048.p).wrapping_sub(&U2048::ONE);
        if peer <= U2048::ONE || peer >= last {
            return Err(invalid());
        }
        Ok(SharedSecret::from(&power(&peer, &self.secret)?.to_be_bytes()[..]))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        Some(FFDHE2048)
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::FFDHE2048
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_compute_the_same_secret() {
        let [first, second] = [(); 2].map(|()| Ffdhe2048.start().expect("a key"));
        let (first_key, second_key) = (first.pub_key().to_vec(), second.pub_key().to_vec());
        assert_ne!(first_key, second_key);
        let [first, second] =
            [first.complete(&second_key), second.complete(&first_key)].map(|secret| secret.expect("valid"));
        assert_eq!(first.secret_bytes(), second.secret_bytes());
    }

    #[test]
    fn rejects_keys_that_make_the_secret_known() {
        let mut last = FFDHE2048.p.to_vec();
        *last.last_mut().expect("not empty") -= 1;
        for key in [&[][..], &[0], &[1], &last, FFDHE2048.p, &[1; 257]] {
            assert!(Ffdhe2048.start().expect("a key").complete(key).is_err(), "{key:x?}");
        }
    }
}
