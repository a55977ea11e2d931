# Evaluates the module without nixpkgs: just enough of its library and of NixOS to see which unit, which configuration
# file and which neighbours come out. Types are not checked here, attribute names of nixpkgs neither.
{
  settings ? { },
}:
let
  inherit (builtins)
    all
    attrNames
    concatLists
    concatStringsSep
    filter
    foldl'
    head
    isAttrs
    isBool
    isInt
    isList
    listToAttrs
    map
    mapAttrs
    replaceStrings
    stringLength
    substring
    toJSON
    ;

  name = "project-yum";
  nameValuePair = name: value: { inherit name value; };
  type = description: { inherit description; };

  lib = {
    inherit
      all
      attrNames
      concatStringsSep
      filter
      nameValuePair
      ;
    mkOption = option: option // { _kind = "option"; };
    mkEnableOption =
      what:
      lib.mkOption {
        default = false;
        description = "Whether to enable ${what}.";
      };
    mkPackageOption =
      pkgs: name: _:
      lib.mkOption {
        default = pkgs.${name};
        description = "The package.";
      };
    mkIf = condition: content: {
      _kind = "if";
      inherit condition content;
    };
    mkMerge = contents: {
      _kind = "merge";
      inherit contents;
    };
    mkDefault = content: {
      _kind = "default";
      inherit content;
    };
    optional = condition: element: if condition then [ element ] else [ ];
    optionalAttrs = condition: set: if condition then set else { };
    mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasInfix = part: text: replaceStrings [ part ] [ "" ] text != text;
    toUpper =
      let
        lower = "abcdefghijklmnopqrstuvwxyz";
        upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        letters = text: builtins.genList (at: substring at 1 text) (stringLength text);
      in
      replaceStrings (letters lower) (letters upper);
    importTOML = file: fromTOML (builtins.readFile file);
    getExe = package: "${package}/bin/${package.name}";
    getExe' = package: program: "${package}/bin/${program}";
    types = {
      attrsOf = type;
      bool = type "bool";
      either = _: _: type "either";
      enum = type;
      ints.positive = type "positive";
      listOf = type;
      nullOr = type;
      path = type "path";
      pathWith = type;
      port = type "port";
      str = type "str";
      submodule = module: { inherit (module) options; };
    };
  };

  toml = value: if isBool value || isInt value then toJSON value else toJSON (toString value);
  table =
    set:
    concatStringsSep "" (
      map (key: if isAttrs set.${key} then "" else "${key} = ${toml set.${key}}\n") (attrNames set)
      ++ map (key: if isAttrs set.${key} then "[${key}]\n${table set.${key}}" else "") (attrNames set)
    );
  package = name: {
    inherit name;
    outPath = "/package/${name}";
  };
  pkgs = {
    ${name} = package name;
    coreutils = package "coreutils";
    formats.toml = _: {
      type = { };
      generate = name: value: builtins.toFile name (table value);
    };
  };

  # An option's default, or those of the options below it.
  defaults =
    options:
    if options._kind or "" == "option" then
      (if (options.type or { }) ? options then defaults options.type.options else options.default)
    else
      mapAttrs (_: defaults) options;
  undescribed =
    path: options:
    if options._kind or "" == "option" then
      lib.optional (!(options ? description)) (concatStringsSep "." path)
      ++ (if (options.type or { }) ? options then undescribed path options.type.options else [ ])
    else
      concatLists (map (name: undescribed (path ++ [ name ]) options.${name}) (attrNames options));

  # What a definition says, as a list of plain values: mkIf and mkMerge gone, the weak ones first.
  plain =
    value:
    if isAttrs value && value._kind or "" == "if" then
      (if value.condition then plain value.content else [ ])
    else if isAttrs value && value._kind or "" == "merge" then
      concatLists (map plain value.contents)
    else
      [ value ];
  isWeak = value: isAttrs value && value._kind or "" == "default";
  strong = value: if isWeak value then value.content else value;
  isTree = value: isAttrs value && !(value ? outPath);
  merged =
    values:
    let
      found = concatLists (map plain values);
      last = strong (builtins.elemAt found (builtins.length found - 1));
      sure = filter (value: !isWeak value) found;
      trees = filter isTree (map strong found);
    in
    if found == [ ] then
      { }
    else if trees != [ ] then
      let
        names = attrNames (foldl' (all: tree: all // tree) { } trees);
        of = name: concatLists (map (tree: lib.optional (tree ? ${name}) tree.${name}) trees);
      in
      # What is defined only under a condition that does not hold is not there.
      listToAttrs (
        map (name: nameValuePair name (merged (of name))) (
          filter (name: concatLists (map plain (of name)) != [ ]) names
        )
      )
    else if all isList found then
      concatLists found
    else if sure != [ ] then
      builtins.elemAt sure (builtins.length sure - 1)
    else
      last;

  evaluate =
    own:
    import ../../../nixos-module {
      inherit lib pkgs;
      config.services = {
        ${name} = own;
        redis.servers.${name} = {
          user = "redis-${name}";
          unixSocket = "/run/redis-${name}/redis.sock";
        };
      };
      utils.escapeSystemdExecArgs = arguments: concatStringsSep " " (map toString arguments);
    };
  # The module also defines settings of its own, by switches that these definitions do not change: two rounds do.
  inherit ((evaluate { })) options;
  given = [
    (defaults options.services.${name})
    settings
  ];
  first = merged (plain (evaluate (merged given)).config);
  own = merged (
    [ (head given) ] ++ lib.optional (first ? services.${name}) first.services.${name} ++ [ settings ]
  );
  result = merged (plain (evaluate own).config);
in
{
  undescribed = undescribed [ ] options;
  refused = map (assertion: assertion.message) (
    filter (assertion: !assertion.assertion) (result.assertions or [ ])
  );
  warnings = result.warnings or [ ];
  unit = result.systemd.services.${name} or null;
  ports = result.networking.firewall.allowedTCPPorts or [ ];
  services = removeAttrs (result.services or { }) [ name ];
  image = import ../../../nixos-module/image.nix {
    inherit lib;
    dockerTools = {
      buildLayeredImage = image: image // { contents = map toString image.contents; };
      caCertificates = package "ca-certificates";
    };
    ${name} = package name // { version = "0"; };
    revision = "0000000";
  };
  scripts = map (
    file:
    (import file { module = { }; } { }).testScript {
      nodes.machine.services.${name}.package = package name;
      nodes.one.services.${name}.package = package name;
    }
  ) [ ../../../nixos-module/test.nix ../../../nixos-module/test-cluster.nix ];
}
