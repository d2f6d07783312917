//! Serves the files of a boot server over plain TCP: a client sends one line with a path, and receives the bytes of the file.
//!
//!     cargo run -p rtftp-runtime --example tcp_file_server -- /srv/tftp 127.0.0.1:7000

use std::{
    env,
    error::Error,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use rtftp_runtime::{
    files::FileStore,
    rtftp_core::RequestPath,
    smol::{
        Async, Executor, block_on,
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    },
};

/// Sends the requested file.
async fn serve(mut stream: Async<TcpStream>, client: SocketAddr, files: Arc<FileStore>) -> Result<(), Box<dyn Error>> {
    let mut line = Vec::new();
    BufReader::new(&mut stream).take(1024).read_until(b'\n', &mut line).await?;
    let path = RequestPath::parse(line.trim_ascii_end())?;
    let mut file = files.open(client, &path).await?;
    let (mut buf, mut offset) = (vec![0; 65_536], 0);
    while let len @ 1.. = file.read_at(offset, &mut buf).await? {
        stream.write_all(&buf[..len]).await?;
        offset += len as u64;
    }
    Ok(())
}

/// Accepts connections, and serves each in a task.
async fn listen(
    listener: Async<TcpListener>,
    files: Arc<FileStore>,
    executor: &Executor<'static>,
) -> Result<(), Box<dyn Error>> {
    loop {
        let (stream, client) = listener.accept().await?;
        let files = files.clone();
        let serve =
            async move { serve(stream, client, files).await.unwrap_or_else(|error| eprintln!("{client}: {error}")) };
        executor.spawn(serve).detach();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let [root, address] =
        env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "usage: tcp_file_server ROOT ADDRESS")?;
    let executor = Arc::new(Executor::new());
    let files = Arc::new(FileStore::new(root.into(), executor.clone()));
    let listener = Async::<TcpListener>::bind(address.parse::<SocketAddr>()?)?;
    block_on(executor.run(listen(listener, files, &executor)))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        net::Shutdown,
        thread,
    };

    use super::*;

    fn fetch(server: SocketAddr, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(server).expect("connected");
        writeln!(stream, "{path}").expect("sent");
        stream.shutdown(Shutdown::Write).expect("shut down");
        let mut file = Vec::new();
        stream.read_to_end(&mut file).expect("received");
        file
    }

    #[test]
    fn serves_the_roots_of_a_client() {
        let root = tempfile::tempdir().expect("a directory");
        let kernel: Vec<u8> = (0..1_000_000).map(|at| (at / 11) as u8).collect();
        for (directory, file, content) in
            [("default", "kernel", &kernel[..]), ("127.0.0.1", "config", b"own"), ("default", "config", b"default")]
        {
            fs::create_dir_all(root.path().join(directory)).expect("created");
            fs::write(root.path().join(directory).join(file), content).expect("written");
        }
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).expect("bound");
        let server = listener.get_ref().local_addr().expect("bound");
        let root_path = root.path().to_owned();
        thread::spawn(move || {
            let executor = Arc::new(Executor::new());
            let files = Arc::new(FileStore::new(root_path, executor.clone()));
            block_on(executor.run(listen(listener, files, &executor))).expect("listening");
        });
        assert!(fetch(server, "/kernel") == kernel);
        assert_eq!(fetch(server, "config"), b"own");
        assert_eq!(fetch(server, "../kernel"), b"");
        assert_eq!(fetch(server, "missing"), b"");
    }
}
