# Two servers with one PostgreSQL and one Redis: a message crosses, and a client outlives its server.
{ module }:
{ ... }:
let
  server =
    { lib, pkgs, ... }:
    {
      imports = [ module ];
      services.project-yum = {
        enable = true;
        openFirewall = true;
        credentials = {
          jwt_secret = "/etc/chat-jwt";
          database_url = "/etc/chat-database";
          redis_url = "/etc/chat-redis";
        };
        settings.listen.address = "0.0.0.0";
      };
      # Secrets of a test only.
      environment.etc = {
        "chat-jwt".text = "0123456789abcdef0123456789abcdef";
        "chat-database".text = "postgres://project-yum:secret@backend/project-yum?sslmode=disable";
        "chat-redis".text = "redis://backend:6379";
      };
      environment.systemPackages = [ pkgs.curl ];
      virtualisation.memorySize = 1024;
      virtualisation.cores = 2;
      # The test starts it when the database is there.
      systemd.services.project-yum.wantedBy = lib.mkForce [ ];
      system.stateVersion = lib.mkDefault "26.05";
    };
in
{
  name = "project-yum-cluster";

  nodes = {
    backend =
      { lib, ... }:
      {
        services.postgresql = {
          enable = true;
          enableTCPIP = true;
          ensureDatabases = [ "project-yum" ];
          ensureUsers = [
            {
              name = "project-yum";
              ensureDBOwnership = true;
            }
          ];
          authentication = lib.mkForce ''
            local all all peer
            host all all all scram-sha-256
          '';
        };
        services.redis.servers.chat = {
          enable = true;
          port = 6379;
          bind = null;
          settings.protected-mode = "no";
        };
        networking.firewall.allowedTCPPorts = [
          5432
          6379
        ];
        system.stateVersion = lib.mkDefault "26.05";
      };
    one = server;
    two = server;
    # In front of both: who loses a server comes back at the other one.
    front =
      { lib, pkgs, ... }:
      {
        services.haproxy = {
          enable = true;
          config = ''
            defaults
              mode http
              timeout connect 2s
              timeout client 1h
              timeout server 1h
              option redispatch
            frontend chat
              bind :80
              default_backend servers
            backend servers
              balance first
              option httpchk GET /health/ready
              server one one:4000 check inter 500ms fall 1
              server two two:4000 check inter 500ms fall 1
          '';
        };
        environment.systemPackages = [ (pkgs.callPackage ./client.nix { }) ];
        system.stateVersion = lib.mkDefault "26.05";
      };
  };

  testScript =
    { nodes, ... }:
    let
      program = "${nodes.one.services.project-yum.package}/bin/project-yum";
    in
    ''
      start_all()
      backend.wait_for_unit("postgresql.target")
      backend.wait_for_unit("redis-chat.service")
      backend.succeed("sudo -u postgres psql -c \"ALTER ROLE \\\"project-yum\\\" PASSWORD 'secret'\"")
      for server in [one, two]:
          server.succeed("systemctl start project-yum.service")
          server.wait_for_open_port(4000)
      front.wait_for_unit("haproxy.service")

      token = one.succeed("JWT_SECRET_FILE=/etc/chat-jwt ${program} token --sub alice").strip()

      with subtest("a message crosses Redis"):
          front.execute(f"chat http://two:4000 {token} lobby hear 1 > /tmp/two 2>&1 &")
          front.wait_until_succeeds("grep -q joined /tmp/two")
          front.succeed(f"chat http://one:4000 {token} lobby say across")
          front.wait_until_succeeds("grep -q 'heard 1 across' /tmp/two")

      with subtest("a client outlives its server"):
          front.execute(f"chat http://front {token} lobby hear 2 > /tmp/front 2>&1 &")
          front.wait_until_succeeds("grep -q joined /tmp/front")
          front.succeed(f"chat http://one:4000 {token} lobby say before")
          front.wait_until_succeeds("grep -q 'heard 2 before' /tmp/front")
          one.crash()
          front.succeed(f"chat http://two:4000 {token} lobby say after")
          front.wait_until_succeeds("grep -q 'heard 3 after' /tmp/front", timeout=90)
    '';
}
