//! Who answers at an endpoint: a real API server, and what is not one.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Instant,
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use capi_kamaji::{
    pki::{issue, spec::AltNames},
    tenant::who_answers::{Answer, ask},
};
use e2e::port;
use k8s_openapi::jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::server;

const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// What a server does with a connection.
#[derive(Clone, Copy)]
enum Does {
    /// Leads to an API server, under an address that its certificate does not name.
    Forwards(SocketAddr),
    /// Speaks HTTP without TLS.
    SpeaksPlainly,
    /// Accepts, and is silent.
    Nothing,
}

async fn listen(does: Does) -> Result<String> {
    let listener = TcpListener::bind((ELSEWHERE, port::free(ELSEWHERE)?)).await?;
    let url = format!("https://{}", listener.local_addr()?);
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut client, _)) = listener.accept().await {
            match does {
                Does::Forwards(to) => {
                    let Ok(mut there) = TcpStream::connect(to).await else {
                        return;
                    };
                    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut there).await });
                }
                Does::SpeaksPlainly => {
                    let _ = client.read(&mut [0; 64]).await;
                    let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                }
                Does::Nothing => silent.push(client),
            }
        }
    });
    Ok(url)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_server_with_a_certificate_of_the_ca_for_this_address_is_ours() -> Result<()> {
    let Some(server) = server().await? else {
        return Ok(());
    };
    let config = server.config()?;
    let url = config.cluster_url.to_string();
    let url = url.trim_end_matches('/');
    let der = config.root_cert.context("no CA")?.remove(0);
    let ca = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        STANDARD.encode(der)
    );
    assert_eq!(ask(url, &ca).await?, Answer::Ours);

    let other_ca = issue::ca("other", &AltNames::default(), Timestamp::now())?.cert_pem;
    assert_eq!(ask(url, &other_ca).await?, Answer::Another);
    let address: SocketAddr = url.trim_start_matches("https://").parse()?;
    let elsewhere = listen(Does::Forwards(address)).await?;
    assert_eq!(ask(&elsewhere, &ca).await?, Answer::OtherNames);
    let plain = listen(Does::SpeaksPlainly).await?;
    assert_eq!(ask(&plain, &ca).await?, Answer::Silence);

    let nobody = format!("https://{}:{}", ELSEWHERE, port::free(ELSEWHERE)?);
    assert_eq!(ask(&nobody, &ca).await?, Answer::Silence);
    let (silent, began) = (listen(Does::Nothing).await?, Instant::now());
    assert_eq!(ask(&silent, &ca).await?, Answer::Silence);
    println!(
        "a server that is silent is given up after {} ms",
        began.elapsed().as_millis()
    );
    assert!(began.elapsed().as_secs() < 20);
    Ok(())
}
