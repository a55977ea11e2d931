# The container image: the server, its closure, and certificates to check others by. No shell, nobody's home, no root.
# The same source gives the same bytes: nix build .#image && nix build .#image --rebuild
{
  lib,
  dockerTools,
  project-yum,
  revision ? null,
}:
let
  manifest = (lib.importTOML ../Cargo.toml).package;
in
dockerTools.buildLayeredImage {
  name = "project-yum";
  tag = project-yum.version;
  # Not "now": the image must not change when nothing in it does.
  created = "1970-01-01T00:00:01Z";
  contents = [
    project-yum
    dockerTools.caCertificates
  ];
  # Where a volume goes; nothing else may be written to.
  fakeRootCommands = ''
    mkdir -p ./data
    chown 65532:65532 ./data
  '';
  config = {
    # By number, so that a kubelet can see that it is not root.
    User = "65532:65532";
    Entrypoint = [ (lib.getExe project-yum) ];
    Env = [
      "HOST=0.0.0.0"
      "METRICS_ADDR=0.0.0.0:9464"
      "LOG_FORMAT=json"
      "DATABASE_URL=sqlite:/data/chat.db"
    ];
    Volumes."/data" = { };
    ExposedPorts = {
      "4000/tcp" = { };
      "9464/tcp" = { };
    };
    StopSignal = "SIGTERM";
    Labels = {
      "org.opencontainers.image.title" = "project-yum";
      "org.opencontainers.image.description" = manifest.description;
      "org.opencontainers.image.version" = project-yum.version;
      "org.opencontainers.image.licenses" = manifest.license;
    }
    // lib.optionalAttrs (revision != null) {
      "org.opencontainers.image.revision" = revision;
    }
    // lib.optionalAttrs (manifest ? repository) {
      "org.opencontainers.image.source" = manifest.repository;
    };
  };
}
