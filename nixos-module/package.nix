# The server. Only what the build reads is its source, so that an edit of the README builds nothing anew.
{
  lib,
  rustPlatform,
  git,
  # The commit, for `project-yum --version`; the build itself never asks git.
  revision ? null,
}:
let
  manifest = (lib.importTOML ../Cargo.toml).package;
in
rustPlatform.buildRustPackage {
  pname = manifest.name;
  inherit (manifest) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../clippy.toml
      ../src
      ../migrations
      # Compiled into the unit tests.
      ../tests/support/keys.json
    ];
  };

  # Every crate is fetched by the checksum in the lock file, so there is no hash here that could go stale.
  cargoLock.lockFile = ../Cargo.lock;

  # glommio's build script calls it to fetch what the published crate already has, and ignores that it fails.
  nativeBuildInputs = [ git ];

  env = lib.optionalAttrs (revision != null) { PROJECT_YUM_REVISION = revision; };

  # The black-box tests need databases and more lockable memory than a builder may have: they run in the VM tests
  # and in tests/run. So do those unit tests that start an executor.
  cargoTestFlags = [ "--lib" ];
  checkFlags = [
    "--skip=server::executor::"
    "--skip=net::websocket::"
  ];

  meta = {
    inherit (manifest) description;
    homepage = manifest.repository or null;
    license = lib.licenses.mit;
    mainProgram = manifest.name;
    platforms = lib.platforms.linux;
  };
}
