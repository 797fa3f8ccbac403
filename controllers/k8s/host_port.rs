//! `host:port` as text, and addresses of a range. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;

use super::names::is_dns_name_of_any_case;

/// A host and a port. Its text has brackets around an IPv6 address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A DNS name or an address, without brackets; never empty.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl HostPort {
    /// A host, with brackets around an IPv6 address or without, and a port.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: without_brackets(host).to_owned(),
            port,
        }
    }

    /// Reads what another program wrote: the port follows the last colon, brackets around an IPv6 address are optional,
    /// the host is not checked. `None` when a part is missing or the port is not 1 to 65535.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let found = Self::new(host, port.parse().ok().filter(|port| *port > 0)?);
        (!found.host.is_empty()).then_some(found)
    }

    /// Reads what a user wrote: an IPv6 address is in brackets and nothing else is, as in a URL (RFC 3986, 3.2.2). The
    /// characters of a name are not checked.
    pub fn parse_strict(text: &str) -> Option<Self> {
        let found = Self::parse(text)?;
        let host = text.rsplit_once(':').map(|(host, _)| host)?;
        let fits = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.contains([':', '[', ']']),
        };
        fits.then_some(found)
    }

    /// The `https://` URL.
    pub fn https(&self) -> String {
        format!("https://{self}")
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.host, self.port))
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn joined(host: &str, port: impl fmt::Display) -> String {
    format!("{}:{port}", in_url(host))
}

/// A host as it is written in a URL: brackets around an address with colons.
pub fn in_url(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// Whether `text` is an IP address without brackets, or a DNS name in letters of either case.
pub fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_dns_name_of_any_case(text)
}

/// A host without the brackets of a URL.
pub fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host)
}

/// The host of `host` or `host:port`, brackets included.
pub fn host_of(text: &str) -> &str {
    text.rsplit_once(':').map_or(text, |(host, _)| host)
}

/// The `n`-th address of a range, counted from its first; `None` when the range has fewer.
pub fn nth_address(range: &IpNet, n: u8) -> Option<IpAddr> {
    let address = match range.network() {
        IpAddr::V4(first) => IpAddr::V4(u32::from(first).checked_add(u32::from(n))?.into()),
        IpAddr::V6(first) => IpAddr::V6(u128::from(first).checked_add(u128::from(n))?.into()),
    };
    range.contains(&address).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_are_read_and_written() {
        for (text, host, port) in [
            ("a.example.org:6443", "a.example.org", 6443),
            ("192.0.2.7:1", "192.0.2.7", 1),
            ("[2001:db8::7]:65535", "2001:db8::7", 65535),
        ] {
            let read = HostPort::parse(text).unwrap();
            assert_eq!((read.host.as_str(), read.port), (host, port));
            assert_eq!(HostPort::parse_strict(text), Some(read.clone()));
            assert_eq!(read.to_string(), text);
            assert_eq!(read.https(), format!("https://{text}"));
            assert_eq!(read, HostPort::new(host, port));
        }
    }

    #[test]
    fn an_address_without_brackets_is_read_where_programs_write_it_so() {
        assert_eq!(
            HostPort::parse("2001:db8::7:6443"),
            Some(HostPort::new("2001:db8::7", 6443))
        );
        assert_eq!(HostPort::parse_strict("2001:db8::7:6443"), None);
    }

    #[test]
    fn a_missing_part_is_refused() {
        for text in ["", ":", "a", "a:", "a:0", "a:65536", "a:-1", ":6443", "[]:6443"] {
            assert_eq!(HostPort::parse(text), None, "{text:?}");
            assert_eq!(HostPort::parse_strict(text), None, "{text:?}");
        }
        for text in ["https://a:1", "[a]:1", "[192.0.2.7]:1"] {
            assert_eq!(HostPort::parse_strict(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_host_is_an_address_or_a_name() {
        for host in ["192.0.2.7", "2001:db8::7", "LB.example.org", "a"] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "",
            "[2001:db8::7]",
            "fe80::1%eth0",
            "a b",
            "a'",
            "$(id)",
            "a;b",
            "a/b",
        ] {
            assert!(!is_host(host), "{host:?}");
        }
    }

    #[test]
    fn addresses_are_counted_within_their_range() {
        let nth = |range: &str, n| nth_address(&range.parse().unwrap(), n).map(|address| address.to_string());
        assert_eq!(nth("10.96.0.0/16", 10).as_deref(), Some("10.96.0.10"));
        assert_eq!(nth("fd00::/108", 1).as_deref(), Some("fd00::1"));
        assert_eq!(nth("10.96.0.0/30", 10), None);
    }
}
