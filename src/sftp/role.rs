//! The role `@sftp`: from what init started to a server for one client.

use std::{
    fs::File,
    io::{self, BufReader, Write},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    process::ExitCode,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::stat::{Mode, umask},
    unistd::{chdir, getppid, getuid},
};

use super::{
    SftpSpec, View,
    connection::{self, ConnectionError},
    names::Names,
    server::Server,
};
use crate::sys::{
    container::Container,
    descriptor::{INHERITED, inherited},
    process::raise_descriptor_limit,
    rights,
    spawn::die_with,
};

/// What pipes to the client are asked to hold, so that both sides run at once. The kernel gives a user 64 MiB of that.
const PIPE: i32 = 1 << 20;

/// Why files are not, or no longer, served.
#[derive(Debug, thiserror::Error)]
enum SftpError {
    #[error("not started by shlogin itself")]
    NotTold(#[source] io::Error),
    #[error("the image's programs are not to be found: {0}")]
    NoContainer(#[source] io::Error),
    #[error("cannot join the image's programs: {0}")]
    Join(#[source] io::Error),
    #[error("cannot give rights up: {0}")]
    Rights(#[source] io::Error),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// The role `@sftp`. Descriptors: 0 and 1 the client, 2 for what goes wrong, 3 the [`SftpSpec`] as a file.
pub fn run() -> ExitCode {
    match prepare().and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With stderr gone there is nobody left to tell.
            let _ = writeln!(io::stderr(), "shlogin: sftp: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Moves to where the files are to be seen as the session's programs see them, with no more rights than those have.
fn prepare() -> Result<Server, SftpError> {
    let spec: SftpSpec = told().map_err(SftpError::NotTold)?;
    // What cannot be raised is what a client's many handles will run into, and be told.
    let _ = raise_descriptor_limit();
    let init = getppid();
    if spec.view == View::Container {
        let container = Container::below(init).map_err(SftpError::NoContainer)?;
        container.join().map_err(SftpError::Join)?;
    }
    let lessen = || {
        rights::drop_capabilities()?;
        rights::no_new_privileges()?;
        // Gaining capabilities has undone it.
        die_with(init)
    };
    lessen().map_err(SftpError::Rights)?;
    umask(Mode::from_bits_truncate(spec.umask));
    let names = Names::read();
    let of_image = names.home(getuid().as_raw()).filter(|_| spec.view == View::Container);
    let home = of_image.unwrap_or(&spec.home).to_owned();
    // A home that is kept out of an image is no reason to serve nothing.
    let home = [home.as_path(), Path::new("/")].into_iter().find(|folder| chdir(*folder).is_ok());
    let home = home.unwrap_or(Path::new("/")).to_owned();
    Ok(Server::new(names, home))
}

fn told() -> io::Result<SftpSpec> {
    let file = File::from(inherited(INHERITED)?);
    Ok(serde_json::from_reader(BufReader::new(file))?)
}

fn serve(server: Server) -> Result<(), SftpError> {
    let (input, output) = (io::stdin(), io::stdout());
    let stream = |fd: BorrowedFd<'_>| -> Result<File, ConnectionError> {
        // What is no pipe has a size of its own.
        let _ = fcntl(fd, FcntlArg::F_SETPIPE_SZ(PIPE));
        Ok(fd.try_clone_to_owned()?.into())
    };
    let (input, output) = (stream(input.as_fd())?, stream(output.as_fd())?);
    Ok(connection::serve(input, output, server)?)
}
